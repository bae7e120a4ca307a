"""The roles on a worker where we are not root: nothing is installed, everything lies in the cache directory."""

import hashlib
import json
import os
import re
import stat
import subprocess

import pytest

from rch.fleet import is_stale, read_registry
from rch.testing.lab import EmbeddedLab
from rch.testing.lab_provision import PlaybookFailed, provision


@pytest.fixture
def again(embedded_lab):
    """Run a playbook once more, as the lab itself did."""

    def run(playbook="playbooks/workers.yml", *arguments):
        return provision(
            embedded_lab.inventory,
            scratch=embedded_lab.directory,
            state_dir=embedded_lab.state_dir,
            playbook=playbook,
            arguments=arguments,
        )

    return run


def changes(recap):
    """Names of the tasks that changed something."""
    found, task = [], ""
    for line in recap.output.splitlines():
        if line.startswith("TASK ["):
            task = line[6:].split("]")[0]
        elif line.startswith("changed:"):
            found.append(task)
    return found


class TestASecondRun:
    def test_pd_01_changes_nothing(self, again):
        assert changes(again()) == []

    def test_pd_01_in_check_mode_has_nothing_to_announce(self, again):
        assert changes(again("playbooks/workers.yml", "--check", "--diff")) == []

    def test_pd_01_restores_what_was_removed(self, again, embedded_worker):
        link = os.path.join(embedded_worker.cache_dir, "bin", "rch-wkr")
        target = os.path.realpath(link)
        os.unlink(link)
        os.chmod(embedded_worker.cache_dir, 0o755)
        assert set(changes(again())) == {
            "worker_base : configure | Make the cache directory",
            "rch_worker : configure | Switch to the version",
        }
        assert os.path.realpath(link) == target
        assert stat.S_IMODE(os.stat(embedded_worker.cache_dir).st_mode) == 0o700


@pytest.mark.sshd
class TestABlankWorker:
    def test_pd_01_passes_in_check_mode_and_stays_blank(self, lab_place):
        lab = EmbeddedLab(os.path.join(lab_place, "emb-blank"), workers=1)
        try:
            lab.up(with_roles=False)
            before = sorted(os.listdir(lab.worker.directory))
            recap = provision(
                lab.inventory, scratch=lab.directory, state_dir=lab.state_dir, arguments=("--check", "--diff")
            )
            assert recap.count("failed") == 0
            assert "worker_base : configure | Make the cache directory" in changes(recap)
            assert sorted(os.listdir(lab.worker.directory)) == before
        finally:
            lab.down()


class TestTheWorker:
    def test_has_everything_below_its_private_cache_directory(self, embedded_worker):
        cache = embedded_worker.cache_dir
        assert stat.S_IMODE(os.stat(cache).st_mode) == 0o700
        link = os.readlink(os.path.join(cache, "bin", "rch-wkr"))
        assert re.fullmatch(r"\.\./versions/[0-9a-f]{16}/rch-wkr", link)

    def test_keeps_its_facts_as_a_private_file_that_cannot_be_run(self, embedded_worker):
        path = os.path.join(embedded_worker.cache_dir, "facts.d", "rch.fact")
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600

    def test_uses_this_machines_rust_in_place(self, embedded_lab):
        said = subprocess.run(["rustc", "-vV"], cwd="/", capture_output=True, text=True, check=True).stdout.strip()
        facts = read_registry(embedded_lab.state_dir).workers["lab1"].observed.facts
        rows = [row for row in facts["toolchains"]["rust"] if row["identity"] == said]
        assert len(rows) == 1
        assert all(path == place and os.path.exists(path) for path, place in rows[0]["binds"].items())
        assert not os.path.exists(os.path.join(embedded_lab.worker.cache_dir, "toolchains", "rust"))

    def test_a_27_answers_a_person_over_plain_ssh_without_rchd(self, embedded_worker):
        program = f"{embedded_worker.cache_dir}/bin/rch-wkr"
        for command in ("health", "slots", "facts", "gc --dry-run"):
            done = embedded_worker.run(*f"{program} {command} --cache {embedded_worker.cache_dir}".split())
            assert isinstance(json.loads(done.stdout), (dict, list)), command

    def test_proved_its_sandbox(self, embedded_lab):
        facts = read_registry(embedded_lab.state_dir).workers["lab1"].observed.facts
        assert facts["sandbox"]["ok"] is True, facts["sandbox"]


class TestTheRegistry:
    def test_is_compiled_by_the_playbook_and_fresh(self, embedded_lab):
        assert not is_stale(embedded_lab.state_dir, embedded_lab.inventory)
        declared = read_registry(embedded_lab.state_dir).workers["lab1"].declared
        worker = embedded_lab.worker
        assert (declared.host, declared.port, declared.user) == (worker.host, worker.port, worker.user)
        assert (declared.ssh_key, declared.known_hosts) == (worker.client_key, worker.known_hosts)
        assert declared.embedded

    def test_pd_06_holds_the_same_facts_as_the_worker(self, embedded_lab):
        with open(os.path.join(embedded_lab.worker.cache_dir, "facts.d", "rch.fact"), encoding="utf-8") as file:
            there = json.load(file)
        assert read_registry(embedded_lab.state_dir).workers["lab1"].observed.facts == there
        record = os.path.join(embedded_lab.state_dir, "facts", "lab1.json")
        assert stat.S_IMODE(os.stat(record).st_mode) == 0o600


class TestProbing:
    def test_refreshes_the_record_and_changes_nothing(self, again, embedded_lab):
        record = os.path.join(embedded_lab.state_dir, "facts", "lab1.json")
        os.utime(record, (1, 1))
        assert changes(again("playbooks/probe.yml")) == []
        assert os.stat(record).st_mtime > 1

    def test_puts_a_fact_right_that_somebody_changed(self, again, embedded_worker):
        path = os.path.join(embedded_worker.cache_dir, "facts.d", "rch.fact")
        with open(path, "w", encoding="utf-8") as file:
            file.write("{}")
        assert changes(again("playbooks/probe.yml")) == ["rch_worker : write_facts | Write the facts"]


class TestVersions:
    def test_pd_03_go_back_by_the_link_and_forward_again(self, again, embedded_worker):
        cache = embedded_worker.cache_dir
        link = os.path.join(cache, "bin", "rch-wkr")
        now = os.readlink(link)
        with open(os.path.join(cache, "bin", "rch-wkr"), "rb") as file:
            older = file.read() + b"\n"  # another build: a zipapp may be followed by anything
        name = hashlib.sha256(older).hexdigest()[:16]
        os.makedirs(os.path.join(cache, "versions", name), mode=0o700)
        with open(os.path.join(cache, "versions", name, "rch-wkr"), "wb") as file:
            file.write(older)
        os.chmod(os.path.join(cache, "versions", name, "rch-wkr"), 0o700)

        again("playbooks/workers.yml", "--extra-vars", f"rch_worker_version='{name}'", "--tags", "rch_worker")
        assert os.readlink(link) == f"../versions/{name}/rch-wkr"
        again()
        assert os.readlink(link) == now

    def test_pd_03_that_are_not_there_are_refused(self, again, embedded_worker):
        link = os.path.join(embedded_worker.cache_dir, "bin", "rch-wkr")
        now = os.readlink(link)
        with pytest.raises(PlaybookFailed) as caught:
            again("playbooks/workers.yml", "--extra-vars", "rch_worker_version='0123456789abcdef'")
        assert "lab1: rch-wkr 0123456789abcdef is not there" in " ".join(caught.value.recap.output.split())
        assert os.readlink(link) == now


class TestWrongInput:
    def fails(self, again, *arguments):
        with pytest.raises(PlaybookFailed) as caught:
            again("playbooks/workers.yml", *arguments)
        return " ".join(caught.value.recap.output.split())

    def test_pd_02_of_a_role_is_refused_by_name(self, again):
        said = self.fails(again, "--extra-vars", "worker_base_cachedir=/x")
        assert "lab1: unknown variable worker_base_cachedir; next: " in said

    def test_a_missing_tool_is_named_with_its_package(self, again):
        wanted = json.dumps({"worker_base_extra_packages": [{"package": "libfoo-tools", "command": "no-such-foo"}]})
        said = self.fails(again, "--extra-vars", wanted)
        assert "lab1: missing here: libfoo-tools; next: as its administrator, apt install libfoo-tools" in said

    def test_a_cache_directory_in_memory_is_refused(self, again):
        said = self.fails(again, "--extra-vars", "rch_cache_dir=/dev/shm/rch")
        assert "lies on tmpfs, in memory; next: choose a path on a disk. Nothing was changed on it." in said
        assert not os.path.exists("/dev/shm/rch")

    def test_a_clock_that_differs_is_refused_with_its_offset(self, again):
        said = self.fails(again, "--extra-vars", '{"worker_base_clock_limit_s": -1.0}')
        assert re.search(r"lab1: its clock is 0\.\d s (ahead|behind), at most -1\.0 s are allowed; next:", said)

    def test_too_little_disk_is_refused_with_what_there_is(self, again):
        said = self.fails(again, "--extra-vars", "worker_free_mib=99999999")
        assert re.search(r"lab1: has \d+ MiB free at .*, a worker needs 99999999; next: free some", said)
