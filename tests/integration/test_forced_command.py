"""rch works through the forced command: both planes, a build, its products. What it refuses: molecule/worker_base."""

import json
import os
import subprocess

import pytest

from rch.testing.lab_provision import provision

pytestmark = [pytest.mark.container, pytest.mark.heavy]


@pytest.fixture(scope="module")
def forced(container_lab):
    """The container worker with the forced command, and without it again."""

    def set_to(value):
        return provision(
            container_lab.inventory,
            scratch=container_lab.directory,
            state_dir=container_lab.state_dir,
            arguments=("--tags", "worker_base", "--extra-vars", json.dumps({"worker_base_forced_command": value})),
        )

    set_to(True)
    yield container_lab
    set_to(False)


@pytest.fixture
def state(forced, new_state):
    return new_state(forced)


def test_a_shell_is_refused(forced):
    words = forced.worker.ssh_command("id", user="rch")
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    assert done.returncode == 126
    assert done.stdout == b""


def test_a_probe_goes_through_on_both_planes_and_leaves_nothing(state, forced):
    done = state.run("rch", "workers", "probe", forced.worker.name, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert b'"ok": false' not in done.stdout
    left = forced.worker.run("sh", "-c", "ls -d /home/rch/.rch/probe-* /home/rch/.rch/caches/probe-*")
    assert left.stdout == b""


def test_a_build_goes_through_with_a_file_that_only_rsync_carries(state, tmp_path):
    project = tmp_path / "app"
    (project / "src").mkdir(parents=True)
    (project / "Cargo.toml").write_text('[package]\nname = "app"\nversion = "0.1.0"\nedition = "2021"\n')
    big = os.urandom(3 << 20)  # more than travels inside a request (1 MiB)
    (project / "big.bin").write_bytes(big)
    (project / "src" / "main.rs").write_text(
        'static BIG: &[u8] = include_bytes!("../big.bin");\nfn main() { println!("{}", BIG.len()); }\n'
    )
    done = state.exec("cargo", "build", cwd=project, options=("--require-remote",), timeout_s=240)
    assert done.returncode == 0, done.stderr
    made = project / "target" / "debug" / "app"
    assert big in made.read_bytes()
    assert subprocess.run([made], capture_output=True, timeout=60, check=True).stdout == b"3145728\n"
