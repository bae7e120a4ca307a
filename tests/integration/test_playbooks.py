"""Each playbook that is not part of site.yml, alone and by its command: what it does, and that again it does nothing."""

import hashlib
import json
import os
import re
import subprocess
import time

import pytest

from rch.testing.lab import EmbeddedLab
from rch.testing.lab_provision import CHECKOUT, PlaybookFailed, provision
from rch.testing.products import sent_out, succeeded

pytestmark = [pytest.mark.sshd, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def play(rch_state):
    """A function: name of a playbook, arguments -> the recap, as this workstation's ansible-playbook."""

    def run(name, *arguments):
        return provision(
            rch_state.lab.inventory,
            scratch=rch_state.directory,
            state_dir=rch_state.state_dir,
            playbook=f"playbooks/{name}.yml",
            arguments=arguments,
        )

    return run


@pytest.fixture
def older(embedded_worker):
    """The worker with another, older build of rch-wkr as the current one; the name of the one that it had."""
    link = os.path.join(embedded_worker.cache_dir, "bin", "rch-wkr")
    now = os.readlink(link)
    with open(link, "rb") as file:
        data = file.read() + b"\n"  # another build: a zipapp may be followed by anything
    place = os.path.join(embedded_worker.cache_dir, "versions", hashlib.sha256(data).hexdigest()[:16])
    os.makedirs(place, mode=0o700, exist_ok=True)
    with open(os.path.join(place, "rch-wkr"), "wb") as file:
        file.write(data)
    os.chmod(os.path.join(place, "rch-wkr"), 0o700)
    point(link, f"../versions/{os.path.basename(place)}/rch-wkr")
    yield now
    point(link, now)


def point(link, target):
    os.symlink(target, f"{link}.new")
    os.replace(f"{link}.new", link)


def flat(text):
    return " ".join(text.split())


def switch(state):
    (worker,) = json.loads(succeeded(state.run("rch", "workers", "list", "--json")))
    return worker["state"]


class TestDrain:
    def test_waits_for_what_runs_there_and_is_undone(self, rch_state, play, tmp_path):
        succeeded(rch_state.run("rch", "daemon", "start"))
        words = (
            "rch",
            "exec",
            "--worker",
            "lab1",
            "--",
            "sh",
            "-c",
            "touch begun; while [ ! -e /proc/1/x ]; do sleep 1; done",
        )
        job = subprocess.Popen(words, cwd=tmp_path, env=rch_state.environment, stdin=subprocess.DEVNULL)
        try:
            until = time.monotonic() + 60
            while not running(rch_state):
                assert time.monotonic() < until
                time.sleep(0.2)
            with pytest.raises(PlaybookFailed) as caught:
                play("drain", "--extra-vars", "drain_wait_s=3")
            said = flat(caught.value.recap.output)
            assert "lab1: 1 jobs still run after 3 s, new ones do not come; next: rch jobs --active, then" in said
            assert switch(rch_state) == "draining"
        finally:
            job.terminate()
            job.wait(30)
        recap = play("drain")
        assert recap.count("changed") == 0
        assert "lab1: drained, nothing runs there; undo: rch workers enable lab1" in flat(recap.output)
        refused = rch_state.exec("true", cwd=tmp_path, options=("--require-remote",))
        assert refused.returncode == 103
        assert b"draining" in refused.stderr

        back = play("drain", "--extra-vars", "drain_state=enabled")
        assert back.count("changed") == 1
        assert switch(rch_state) == "healthy"
        assert play("drain", "--extra-vars", "drain_state=enabled").count("changed") == 0

    def test_refuses_another_state(self, play):
        with pytest.raises(PlaybookFailed) as caught:
            play("drain", "--extra-vars", "drain_state=gone")
        assert "drain_state is drained or enabled, not gone" in flat(caught.value.recap.output)


def running(state):
    found = json.loads(succeeded(state.run("rch", "jobs", "--json")))
    return [one for one in found if one["state"] == "running" and one["worker"] == "lab1"]


class TestCollectingGarbage:
    def test_names_what_would_go_then_it_goes_and_what_is_young_stays(self, rch_state, play, embedded_worker, tmp_path):
        sent_out(rch_state, "sh", "-c", "echo 1 >made", cwd=tmp_path, options=("--require-remote",))
        succeeded(rch_state.run("rch", "daemon", "stop"))  # and its lease of the tree
        roots = os.path.join(embedded_worker.cache_dir, "roots")
        assert os.listdir(roots)
        assert "lab1: 0 removed, 0.0 MB" in flat(play("gc").output)
        assert os.listdir(roots)
        every = ("--extra-vars", "gc_max_age_h=0", "--extra-vars", "gc_keep=0")
        named = play("gc", "--check", *every)
        assert re.search(r"lab1: [1-9]\d* would go, [0-9.]+ MB", flat(named.output))
        assert os.listdir(roots)
        assert re.search(r"lab1: [1-9]\d* removed, [0-9.]+ MB", flat(play("gc", *every).output))
        assert os.listdir(roots) == []
        assert play("gc", *every).count("changed") == 0

    def test_by_rch_and_by_inv(self, rch_state, tmp_path):
        done = rch_state.run("rch", "fleet", "gc", "--json")
        document = json.loads(succeeded(done)[: len(done.stdout)])
        assert (document["playbook"], document["status"]) == ("gc", "successful")
        assert {change["role"] for change in document["changes"]} <= {"workstation"}  # which is new
        words = (
            "inv",
            "--search-root",
            CHECKOUT,
            "fleet.gc",
            "--limit",
            "lab1",
            "--inventory",
            rch_state.lab.inventory,
        )
        assert re.search(r"ansible-playbook gc\.yml +1 host +ok=\d+ changed=0", succeeded(rch_state.run(*words)))
        other = rch_state.run(*words[:4], "--limit", "nobody", cwd=tmp_path)
        assert other.returncode == 2
        assert other.stderr.decode().strip().count("\n") == 0
        assert b"no worker 'nobody' (known: lab1)" in other.stderr


@pytest.mark.heavy
class TestPlanning:
    def test_by_inv_says_what_would_change_and_changes_nothing(self, rch_state, older):
        said = succeeded(rch_state.run("inv", "--search-root", CHECKOUT, "fleet.plan", timeout_s=300))
        assert re.search(r"(?m)^(lab1)? +rch_worker +Switch to the version: .* → \.\./versions/", said)
        assert "1 of 1 host would change, nothing else. Apply with: rch fleet apply" in said
        assert os.readlink(os.path.join(rch_state.lab.worker.cache_dir, "bin", "rch-wkr")) != older


class TestDiscovering:
    def test_names_the_machines_and_adds_none(self, rch_state, tmp_path, monkeypatch):
        (tmp_path / ".bash_aliases").write_text("alias dead='ssh -p 1 nobody@127.0.0.1'\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        with open(os.path.join(rch_state.lab.inventory, "hosts.yml"), encoding="utf-8") as file:
            before = file.read()
        for arguments in ((), ("--check",)):
            recap = provision(
                rch_state.lab.inventory,
                scratch=rch_state.directory,
                state_dir=rch_state.state_dir,
                playbook="playbooks/discover.yml",
                arguments=arguments,
            )
            assert recap.count("changed") == 0
            assert "name: dead" in recap.output
            assert "Connection refused" in flat(recap.output)
        with open(os.path.join(rch_state.lab.inventory, "hosts.yml"), encoding="utf-8") as file:
            assert file.read() == before


class TestToolchains:
    def lock(self, state, text):
        place = os.path.join(state.environment["XDG_CONFIG_HOME"], "rch")
        os.makedirs(place, exist_ok=True)
        with open(os.path.join(place, "toolchain.toml"), "w", encoding="utf-8") as file:
            file.write(text)

    @pytest.mark.heavy
    def test_are_as_wanted_after_a_sync_that_changes_nothing_the_second_time(self, rch_state):
        first = rch_state.run("rch", "workers", "sync", timeout_s=300)
        assert re.search(r"(?m)^lab1: .*rustc \d", succeeded(first))
        again = succeeded(rch_state.run("rch", "workers", "sync", "lab1", timeout_s=300))
        assert re.search(r"ansible-playbook toolchains\.yml +1 host +ok=\d+ changed=0", again)
        audit = rch_state.run("rch", "workers", "sync", "--check", timeout_s=300)
        assert succeeded(audit)

    def test_that_are_not_as_the_lock_says_fail_the_audit_in_one_line(self, rch_state):
        self.lock(rch_state, '[cpp]\ngcc_version = "99"\n')
        audit = rch_state.run("rch", "workers", "sync", "--check", timeout_s=300)
        assert audit.returncode == 5
        (line,) = [one for one in audit.stderr.decode().splitlines() if one.startswith("rch: error")]
        assert line.startswith("rch: error[Provisioning] lab1: cpp: gcc 99 is wanted, has gcc")
        assert line.endswith("next: ansible-playbook playbooks/toolchains.yml")

    def test_of_a_broken_lock_are_left_alone(self, rch_state):
        self.lock(rch_state, "[rust]\nchanel = 1\n")
        done = rch_state.run("rch", "workers", "sync", timeout_s=300)
        assert done.returncode == 5
        assert b"toolchain.toml:2: unknown key rust.chanel; did you mean rust.channel?" in done.stderr
        assert b"Nothing was changed on any host" in done.stderr


@pytest.mark.heavy
class TestUpgrading:
    def test_switches_verifies_and_lets_work_come_back(self, rch_state, older):
        link = os.path.join(rch_state.lab.worker.cache_dir, "bin", "rch-wkr")
        done = rch_state.run("rch", "fleet", "upgrade", "-v", timeout_s=500)
        said = flat(succeeded(done))
        assert os.readlink(link) == older
        assert re.search(r"lab1: rch-wkr [0-9a-f]{16} replaces [0-9a-f]{16}; lab1: Canary: ", said)
        assert switch(rch_state) == "healthy"
        again = succeeded(rch_state.run("inv", "--search-root", CHECKOUT, "fleet.upgrade", timeout_s=300))
        assert re.search(r"ansible-playbook upgrade\.yml +1 host +ok=\d+ changed=0", again)


@pytest.mark.heavy
class TestMeasuring:
    def test_is_shown_for_every_worker_and_this_machine(self, rch_state):
        done = rch_state.run("rch", "benchmark", "--json", timeout_s=500)
        assert done.returncode == 0, done.stderr
        rows = {row["name"]: row for row in json.loads(done.stdout)}
        assert set(rows) == {"lab1", "here"}
        assert all(0 < row["score"] <= 100 for row in rows.values())
        text = succeeded(rch_state.run("rch", "workers", "benchmark", "lab1", timeout_s=500))
        assert re.search(r"(?m)^NAME +SCORE +COMPILE +CPU +MEMORY +DISK", text)
        assert re.search(r"(?m)^lab1 +[0-9.]+ +[0-9.]+ ", text)


class TestRemoving:
    @pytest.mark.heavy
    def test_takes_everything_from_the_host_and_the_host_from_the_inventory(self, lab_place, new_state):
        lab = EmbeddedLab(os.path.join(lab_place, "emb-purged"), workers=2)
        try:
            lab.up(with_roles=False)
            before = {name: sorted(os.listdir(worker.directory)) for name, worker in lab.workers.items()}
            state = new_state(lab)
            assert state.run("rch", "fleet", "apply", "--tag", "worker_base", timeout_s=300).returncode == 0
            done = state.run("rch", "workers", "remove", "lab2", "--purge", timeout_s=300)
            assert f"lab2 removed from {lab.inventory}/hosts.yml" in succeeded(done)
            assert sorted(os.listdir(lab.workers["lab2"].directory)) == before["lab2"]
            assert os.path.isdir(lab.workers["lab1"].cache_dir)
            (left,) = json.loads(succeeded(state.run("rch", "workers", "list", "--json")))
            assert left["name"] == "lab1"
            assert not os.path.exists(os.path.join(state.state_dir, "facts", "lab2.json"))
        finally:
            lab.down()

    def test_that_fails_leaves_the_host_in_the_inventory(self, lab_place, new_state):
        lab = EmbeddedLab(os.path.join(lab_place, "emb-away"))
        try:
            lab.up(with_roles=False)
            state = new_state(lab)
            lab.worker.unplug()
            done = state.run("rch", "workers", "remove", "lab1", "--purge", timeout_s=300)
            assert done.returncode == 5
            assert b"lab1: 127.0.0.1 does not answer" in done.stderr
            with open(os.path.join(lab.inventory, "hosts.yml"), encoding="utf-8") as file:
                assert "lab1:" in file.read()
        finally:
            lab.down()
