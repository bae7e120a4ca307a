"""rch cannot help: the command runs here with one line that says why, or ends 103 where a worker was demanded."""

import json
import os
import shlex
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from rch.testing.callers import rchd_pid, until
from rch.testing.lab_provision import program
from rch.testing.variants import behind, forget, new_key, own_cache, path_without, stub, vary

MAKEFILE = """\
product: source
	@echo building
	@cp source product
"""


@pytest.fixture
def project(tmp_path):
    place = tmp_path / "project"
    place.mkdir()
    (place / "Makefile").write_text(MAKEFILE)
    (place / "source").write_text("content\n")
    return place


@pytest.fixture
def worker_shell(rch_state, embedded_lab, tmp_path):
    """Every session of this workstation on the worker runs a command of the test's."""
    made = []

    def set_up(command):
        keys = embedded_lab.worker.keys
        key = behind(keys, str(tmp_path), command)
        made.append((keys, key))
        vary(rch_state, rch_ssh_key=key, ansible_ssh_private_key_file=key)

    yield set_up
    for keys, key in made:
        forget(keys, key)


def missing_inventory(state, tmp_path, _):
    state.environment["RCH_INVENTORY"] = str(tmp_path / "no-such-inventory")


def broken_inventory(state, tmp_path, _):
    path = tmp_path / "hosts.yml"
    path.write_text("all:\n  children:\n   - rch_workers: [\n")
    state.environment["RCH_INVENTORY"] = str(path)


def wrong_variable(state, *_):
    vary(state, rch_slots="many")


def nobody_listens(state, *_):
    vary(state, ansible_port=1)


def key_refused(state, tmp_path, _):
    key = new_key(str(tmp_path))
    vary(state, rch_ssh_key=key, ansible_ssh_private_key_file=key)


def key_readable(state, tmp_path, worker):
    key = shutil.copy(worker.client_key, tmp_path / "key")
    os.chmod(key, 0o644)
    vary(state, rch_ssh_key=str(key), ansible_ssh_private_key_file=str(key))


def key_missing(state, tmp_path, _):
    key = str(tmp_path / "no-such-key")
    vary(state, rch_ssh_key=key, ansible_ssh_private_key_file=key)


def host_key_changed(state, tmp_path, worker):
    with open(new_key(str(tmp_path)) + ".pub", encoding="utf-8") as file:
        kind, key = file.read().split()[:2]
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{worker.port} {kind} {key}\n")
    arguments = [word.replace(worker.known_hosts, str(known)) for word in worker.common_args()]
    vary(state, ansible_ssh_common_args=shlex.join(arguments))


def host_key_unknown(state, tmp_path, worker):
    known = tmp_path / "known_hosts"
    known.write_text("")
    arguments = [word.replace(worker.known_hosts, str(known)) for word in worker.common_args()]
    vary(state, ansible_ssh_common_args=shlex.join(arguments))


def agent_missing(state, tmp_path, _):
    vary(state, rch_cache_dir=str(tmp_path / "empty-cache"))


def agent_broken(state, tmp_path, worker):
    cache = own_cache(state, worker, str(tmp_path / "cache"))
    agent = os.path.realpath(os.path.join(cache, "bin", "rch-wkr"))
    os.truncate(agent, 100)


CASES = {
    # what: (set-up, reason code, words of the reason, the doctor's check)
    "inventory missing": (missing_inventory, "no-workers", "no-such-inventory", "inventory"),
    "inventory broken": (broken_inventory, "no-workers", "hosts.yml:", "inventory"),
    "inventory with a wrong value": (wrong_variable, "no-workers", "rch_slots", "inventory"),
    "no worker reachable": (nobody_listens, "unreachable", "Connection refused", "worker:lab1:unreachable"),
    "key refused": (key_refused, "unreachable", "the key was refused", "worker:lab1:key"),
    "key file that others may read": (key_readable, "unreachable", "mode 0644", "worker:lab1:key"),
    "key file missing": (key_missing, "unreachable", "identity file", "worker:lab1:key"),
    "host key changed": (host_key_changed, "unreachable", "the host key has changed", "worker:lab1:host-key"),
    "host key unknown": (host_key_unknown, "unreachable", "the host key is not known", "worker:lab1:host-key"),
    "rch-wkr missing": (agent_missing, "capability-missing", "rch-wkr", "worker:lab1:rch-wkr"),
    "rch-wkr broken": (agent_broken, "capability-missing", "rch-wkr", "worker:lab1:rch-wkr"),
}


@pytest.fixture
def old_server(embedded_worker, tmp_path):
    """The port of another sshd of the embedded worker, which knows the older key exchanges alone."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    lines = Path(embedded_worker.directory, "sshd_config").read_text().splitlines()
    lines = [line for line in lines if not line.startswith(("Port ", "PidFile "))]
    config = tmp_path / "sshd_config"
    config.write_text(
        "\n".join([f"Port {port}", "KexAlgorithms ecdh-sha2-nistp256,diffie-hellman-group14-sha256", *lines])
    )
    with subprocess.Popen([program("sshd"), "-D", "-f", str(config)], stderr=subprocess.DEVNULL) as server:
        try:
            until(lambda: listens(port), "sshd listens")
            yield port
        finally:
            server.terminate()


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True


def trusting(worker, port):
    """The worker's arguments of ssh, with its host key known under *port* too."""
    known = Path(worker.directory, "known_hosts_of_others")
    known.write_text(Path(worker.known_hosts).read_text().replace(f":{worker.port} ", f":{port} "))
    return [word.replace(worker.known_hosts, str(known)) for word in worker.common_args()]


def rch_lines(done):
    """What rch said; everything on stderr has to be that."""
    lines = done.stderr.decode().splitlines()
    assert all(line.startswith(("[rch] ", "rch: ")) for line in lines), lines
    return lines


def runs_here(state, project, code, words):
    done = state.exec("make", cwd=project)
    assert (done.returncode, done.stdout) == (0, b"building\n"), done.stderr
    (line,) = rch_lines(done)
    assert line.startswith(f"[rch] local: {code}: "), line
    assert words in line
    assert "Fix: " in line
    assert (project / "product").read_text() == "content\n"
    os.unlink(project / "product")


def ends_103(state, project, words, *options):
    done = state.exec("make", cwd=project, options=options)
    assert (done.returncode, done.stdout) == (103, b""), done.stderr
    (line,) = rch_lines(done)
    assert line.startswith("rch: error[NotOffloadable] "), line
    assert words in line
    assert "; next: " in line
    assert not (project / "product").exists()


def doctor_names(state, project, check):
    done = state.run("rch", "doctor", "--json", cwd=project)
    assert done.returncode == 1, done.stdout
    found = {row["name"]: row for row in json.loads(done.stdout) if row["status"] == "fail"}
    assert check in found, found
    assert found[check]["remedy"]


class TestTheCommandRunsHereWithOneReason:
    @pytest.mark.parametrize("case", CASES)
    def test_or_ends_103_and_the_doctor_names_the_remedy(self, rch_state, embedded_worker, project, tmp_path, case):
        set_up, code, words, check = CASES[case]
        set_up(rch_state, tmp_path, embedded_worker)
        runs_here(rch_state, project, code, words)
        ends_103(rch_state, project, words, "--require-remote")
        ends_103(rch_state, project, words, "--worker", "lab1")
        doctor_names(rch_state, project, check)

    def test_when_bubblewrap_is_missing_on_the_worker(self, rch_state, worker_shell, project):
        worker_shell(
            "exec bwrap --dev-bind / / --ro-bind /dev/null /usr/bin/bwrap "
            f'{shlex.quote(program("sh"))} -c "$SSH_ORIGINAL_COMMAND"'
        )
        runs_here(rch_state, project, "capability-missing", "bwrap")
        ends_103(rch_state, project, "bwrap", "--require-remote")
        ends_103(rch_state, project, "bwrap", "--worker", "lab1")
        doctor_names(rch_state, project, "worker:lab1:sandbox")

    def test_when_rsync_is_missing_on_the_worker(self, rch_state, worker_shell, project, tmp_path):
        (project / "large").write_bytes(os.urandom(2_000_000))  # too large to travel inside a request
        path = path_without(str(tmp_path / "bin"), "rsync")
        worker_shell(f'PATH={shlex.quote(path)}; export PATH; exec sh -c "$SSH_ORIGINAL_COMMAND"')
        runs_here(rch_state, project, "capability-missing", "rsync")
        ends_103(rch_state, project, "rsync", "--require-remote")
        ends_103(rch_state, project, "rsync", "--worker", "lab1")
        doctor_names(rch_state, project, "worker:lab1:rsync")

    def test_d_12_when_the_server_knows_no_key_exchange_by_curve25519(
        self, rch_state, embedded_worker, old_server, project
    ):
        vary(
            rch_state,
            ansible_port=old_server,
            ansible_ssh_common_args=shlex.join(trusting(embedded_worker, old_server)),
        )
        words = "the server offers no key exchange by curve25519"
        runs_here(rch_state, project, "unreachable", words)
        ends_103(rch_state, project, words, "--require-remote")
        doctor_names(rch_state, project, "worker:lab1:unreachable")

    def test_when_no_daemon_can_be_started(self, rch_state, project):
        os.mkdir(os.path.join(rch_state.state_dir, "rch.db"))
        runs_here(rch_state, project, "no-daemon", "rchd")
        ends_103(rch_state, project, "rchd", "--require-remote")
        ends_103(rch_state, project, "rchd", "--worker", "lab1")
        assert rchd_pid(rch_state) == 0

    def test_when_the_state_directory_cannot_be(self, rch_state, project, tmp_path):
        (tmp_path / "file").write_text("")
        rch_state.environment["RCH_STATE_DIR"] = str(tmp_path / "file" / "state")
        runs_here(rch_state, project, "no-daemon", "cannot be written")
        ends_103(rch_state, project, "cannot be written", "--require-remote")

    def test_ux_02_and_the_reason_is_silent_where_it_was_asked_to_be(self, rch_state, project):
        nobody_listens(rch_state)
        done = rch_state.exec("make", cwd=project, env={"RCH_QUIET": "1"})
        assert (done.returncode, done.stdout, done.stderr) == (0, b"building\n", b"")


@pytest.mark.parametrize("number", [0, 2], ids=["older", "newer"])
class TestAWorkerOfAnotherProtocol:
    def test_is_deployed_anew_once_and_works_while_the_job_of_another_workstation_goes_on(
        self, rch_state, new_state, embedded_lab, project, tmp_path, number
    ):
        cache = own_cache(rch_state, embedded_lab.worker, str(tmp_path / "cache"))
        other = new_state(embedded_lab)
        vary(other, rch_cache_dir=cache)
        words = ("rch", "exec", "--worker", "lab1", "--", "sh", "-c", "echo begun; read line; echo $line; cat source")
        with subprocess.Popen(
            words, cwd=project, env=other.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as going:
            assert going.stdout.readline() == b"begun\n"
            # What another rch would have put there: it introduces itself with another number.
            old = os.path.join(cache, "versions", "0" * 16, "rch-wkr")
            stub(old, "")
            with open(old, "w", encoding="utf-8") as file:
                file.write(f'import sys\nprint("RCH-WKR {number}", flush=True)\nsys.stdin.read()\n')
            link = os.path.join(cache, "bin", "rch-wkr")
            os.unlink(link)
            os.symlink("../versions/" + "0" * 16 + "/rch-wkr", link)
            done = rch_state.exec("make", cwd=project, options=("--worker", "lab1"))
            assert (done.returncode, done.stdout) == (0, b"building\n"), done.stderr
            assert "0" * 16 not in os.readlink(link)
            going.stdin.write(b"go on\n")
            going.stdin.close()
            assert going.stdout.read() == b"go on\ncontent\n"
            assert going.wait(30) == 0

    def test_that_cannot_be_replaced_is_refused_with_both_numbers(
        self, rch_state, embedded_worker, worker_shell, project, tmp_path, number
    ):
        old = stub(str(tmp_path / "old"), f'echo "RCH-WKR {number}"; exec cat >/dev/null')
        worker_shell(
            f"case $SSH_ORIGINAL_COMMAND in *serve*) exec {shlex.quote(old)};; "
            f'*) exec sh -c "$SSH_ORIGINAL_COMMAND";; esac'
        )
        both = f"rch-wkr speaks protocol {number}, this rchd 1"
        runs_here(rch_state, project, "unreachable", both)
        ends_103(rch_state, project, both, "--require-remote")
        doctor_names(rch_state, project, "worker:lab1:rch-wkr")


class TestATimeLimit:
    def test_ends_the_command_with_124_and_leaves_no_process(self, rch_state, project):
        from rch.testing.callers import alive, slots_used, token

        mark = token()
        config = os.path.join(rch_state.environment["XDG_CONFIG_HOME"], "rch", "config.toml")
        os.makedirs(os.path.dirname(config), exist_ok=True)
        with open(config, "w", encoding="utf-8") as file:
            file.write("[execution]\ntimeout_sec = 1\n")
        script = f"trap '' TERM; (setsid sleep {mark} &); echo begun; sleep {mark}; sleep {mark}"
        done = rch_state.exec("sh", "-c", script, cwd=project, options=("--worker", "lab1"))
        assert (done.returncode, done.stdout) == (124, b"begun\n"), done.stderr
        until(lambda: not alive(mark), "every process is gone")
        until(lambda: not slots_used(rch_state.lab.worker), "every slot is free")
        (job,) = json.loads(rch_state.run("rch", "jobs", "--json").stdout)
        assert (job["state"], job["exit_status"]) == ("timeout", 124)
