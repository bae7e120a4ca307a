"""The roles where we are root: account, packages, keys, the workstation's Rust by copy. On a podman container."""

import json
import os
import subprocess
from functools import partial

import pytest

from rch.fleet import read_registry
from rch.testing.lab_containers import ContainerLab
from rch.testing.lab_provision import provision

CACHE = "/home/rch/.rch"


@pytest.fixture
def again(container_lab):
    def run(*arguments):
        return provision(
            container_lab.inventory,
            scratch=container_lab.directory,
            state_dir=container_lab.state_dir,
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


def text(done):
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


def as_rch(worker, *words):
    return subprocess.run(
        worker.ssh_command(*words, user="rch"), stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
    )


class TestASecondRun:
    def test_pd_01_changes_nothing_and_sends_no_module(self, again):
        recap = again("-vvv")
        assert changes(recap) == []
        assert "EXEC" in recap.output
        assert [line for line in recap.output.splitlines() if "Using module file" in line] == []

    @pytest.mark.timeout(900)  # four runs of site.yml's tasks and apt
    def test_pd_01_restores_a_package_that_was_removed(self, again, container_worker):
        text(container_worker.run("apt-get", "remove", "-y", "-q", "tmux"))
        announced = changes(again("--check"))
        assert announced[0] == "system_packages : install | Say what would be installed"
        assert announced[1:] == ["rch_worker : write_facts | Write the facts"]  # tmux is missing in them, now
        assert container_worker.run("sh", "-c", "command -v tmux").returncode != 0
        assert changes(again()) == [
            "system_packages : install | Install the missing packages with apt",
            "rch_worker : write_facts | Write the facts",  # a word in them changes whenever a package comes or goes
            "export | Keep the worker's record",
        ]
        assert changes(again()) == []
        text(container_worker.run("tmux", "-V"))


class TestABlankWorker:
    def test_pd_01_passes_in_check_mode_and_stays_blank(self, lab_place, container_lab):
        lab = ContainerLab(os.path.join(lab_place, "box-blank"))
        try:
            lab.up(with_roles=False)
            recap = provision(
                lab.inventory, scratch=lab.directory, state_dir=lab.state_dir, arguments=("--check", "--diff")
            )
            assert recap.count("failed") == 0
            assert "worker_base : account | Make the account" in changes(recap)
            assert lab.worker.run("getent", "passwd", "rch").returncode != 0
            assert text(lab.worker.run("sh", "-c", "ls -d /home/rch /etc/ansible 2>/dev/null; true")) == ""
        finally:
            lab.down()


@pytest.mark.container
@pytest.mark.heavy
@pytest.mark.timeout(1500)  # half a gigabyte of packages
class TestTheDistributionsToolchains:
    """Rust, Go and Node.js as packages of a bare machine, for whoever does not want this workstation's."""

    def test_are_installed_once_known_and_used(self, lab_place):
        lab = ContainerLab(os.path.join(lab_place, "box-distro"))
        methods = {f"toolchain_{name}_method": "distro" for name in ("rust", "go", "node")}
        try:
            lab.up(with_roles=False)
            run = partial(
                provision,
                lab.inventory,
                scratch=lab.directory,
                state_dir=lab.state_dir,
                arguments=("--extra-vars", json.dumps(methods)),
                timeout_s=1200,
            )
            assert run().count("failed") == 0
            assert changes(run()) == []
            for package, program in (("rustc", "rustc"), ("cargo", "cargo"), ("golang-go", "go"), ("nodejs", "node")):
                assert text(lab.worker.run("dpkg-query", "--show", "--showformat=${Status}", package)).endswith(
                    " installed"
                )
                assert text(lab.worker.run("sh", "-c", f"command -v {program}")) == f"/usr/bin/{program}"
            facts = read_registry(lab.state_dir).workers[lab.worker.name].observed.facts
            rust = text(lab.worker.run("rustc", "-vV"))
            assert [row["identity"] for row in facts["toolchains"]["rust"]] == [rust]
            assert text(lab.worker.run("go", "version")) in [row["identity"] for row in facts["toolchains"]["go"]]
            hello = "cd $(mktemp -d) && cargo init --quiet --name hello && cargo run --quiet"
            assert text(as_rch(lab.worker, "sh", "-c", hello)) == "Hello, world!"
        finally:
            lab.down()


class TestTheAccount:
    def test_has_a_plain_shell_and_no_password(self, container_worker):
        entry = text(container_worker.run("getent", "passwd", "rch")).split(":")
        assert (entry[5], entry[6]) == ("/home/rch", "/bin/sh")
        assert text(container_worker.run("getent", "shadow", "rch")).split(":")[1] == "*"

    def test_logs_in_with_the_workstations_key(self, container_worker):
        assert text(as_rch(container_worker, "id", "-un")) == "rch"

    def test_cannot_plant_a_key_or_an_rc_file(self, container_worker):
        for path in (".ssh/authorized_keys", ".ssh/rc", ".profile", ".ssh2"):
            assert as_rch(container_worker, "sh", "-c", f"echo x >> /home/rch/{path}").returncode != 0
        assert as_rch(container_worker, "mv", "/home/rch/.ssh", "/home/rch/.old").returncode != 0

    def test_may_forward_nothing(self, container_worker):
        words = container_worker.ssh_command("true", user="rch")
        words[1:1] = ["-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:9"]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
        assert done.returncode != 0
        assert b"remote port forwarding failed" in done.stderr

    def test_owns_a_private_cache_directory(self, container_worker):
        assert text(container_worker.run("stat", "-c", "%U %a", CACHE)) == "rch 700"


class TestTheFacts:
    def test_lie_where_ansible_finds_them_and_cannot_be_run_or_changed_by_the_account(self, container_worker):
        path = "/etc/ansible/facts.d/rch.fact"
        assert text(container_worker.run("stat", "-c", "%U %a", path)) == "root 644"
        assert as_rch(container_worker, "sh", "-c", f"echo x >> {path}").returncode != 0

    def test_are_the_record_of_the_registry(self, container_lab, container_worker):
        there = json.loads(text(container_worker.run("cat", "/etc/ansible/facts.d/rch.fact")))
        assert read_registry(container_lab.state_dir).workers[container_worker.name].observed.facts == there

    def test_proved_the_sandbox_as_the_account(self, container_lab, container_worker):
        facts = read_registry(container_lab.state_dir).workers[container_worker.name].observed.facts
        assert facts["sandbox"]["ok"] is True, facts["sandbox"]


class TestRustByCopy:
    @pytest.fixture
    def row(self, container_lab, container_worker):
        """What the worker says about the compiler that this machine uses."""
        said = subprocess.run(["rustc", "-vV"], cwd="/", capture_output=True, text=True, check=True).stdout.strip()
        facts = read_registry(container_lab.state_dir).workers[container_worker.name].observed.facts
        return next(one for one in facts["toolchains"]["rust"] if one["identity"] == said)

    def test_is_the_same_compiler_file_by_file(self, container_worker, row):
        place = row["binds"][row["sysroot"]]
        find = "cd $1 && find bin lib -type f -exec sha256sum {} + | sort"
        here = subprocess.run(["sh", "-c", find, "sh", row["sysroot"]], capture_output=True, check=True).stdout.decode()
        assert text(container_worker.run("sh", "-c", find, "sh", place)) == here.strip()
        assert container_worker.run("test", "-e", f"{place}/share/doc").returncode == 1

    def test_builds_at_the_paths_of_this_machine_in_a_sandbox_without_network(self, container_worker, row):
        binds = [word for path in sorted(row["binds"]) for word in ("--ro-bind", row["binds"][path], path)]
        system = [word for path in ("/usr", "/etc", "/bin", "/lib", "/lib64") for word in ("--ro-bind", path, path)]
        program = "cargo new -q --vcs none /tmp/x && cd /tmp/x && cargo run -q && rustc --print sysroot"
        home = next(path for path in row["binds"] if path.endswith("/bin"))
        words = [
            "bwrap",
            "--unshare-user",
            "--unshare-pid",
            "--unshare-net",
            *system,
            "--proc",
            "/proc",
            "--dev",
            "/dev",
        ]
        words += ["--tmpfs", "/tmp", "--tmpfs", "/root", *binds, "--setenv", "PATH", f"{home}:/usr/bin:/bin"]
        words += ["--setenv", "HOME", home.removesuffix("/.cargo/bin"), "sh", "-c", program]
        assert text(as_rch(container_worker, *words)).splitlines() == ["Hello, world!", row["sysroot"]]

    def test_pd_01_comes_back_when_a_part_of_it_is_lost(self, again, container_worker, row):
        place = row["binds"][row["sysroot"]]
        text(container_worker.run("rm", f"{place}/bin/cargo"))
        assert changes(again()) == ["toolchain_copy : install | Copy the trees"]
        text(container_worker.run("test", "-x", f"{place}/bin/cargo"))
