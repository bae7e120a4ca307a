"""The birth of rchd: who may, once, detached, and what happens when it fails."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rch import client_start
from rch.client_start import COOL_DOWN_S, confinement, daemon_argv, daemon_environment, record_session

ROOT = str(Path(__file__).resolve().parents[3])

# Starts a client whose rchd is a program of the test.
DRIVER = f"""
import sys
sys.path.append({ROOT!r})
import rch.client_start as start
start.daemon_argv = lambda: [sys.executable, *sys.argv[1].split("\\x1f")]
import rch.client_main as client
sys.exit(client.main(sys.argv[2:]))
"""

# An rchd that tells what it was given, answers every command with 0, and ends when nobody came for a while.
BORN = f"""
import json, os, sys, threading, time
sys.path[:0] = [{ROOT!r}, {str(Path(__file__).parent)!r}]
state = os.environ["RCH_STATE_DIR"]
fds = {{}}
for fd in sorted(map(int, os.listdir("/proc/self/fd"))):
    try:
        fds[fd] = os.readlink(f"/proc/self/fd/{{fd}}")
    except OSError:
        pass  # the listing's own
with open(state + "/born", "a") as file:
    status = open("/proc/self/status").read()
    told = {{"pid": os.getpid(), "sid": os.getsid(0), "pgid": os.getpgrp(), "cwd": os.getcwd(), "fds": fds, "environ": dict(os.environ),
             "ignored": [l.split()[1] for l in status.splitlines() if l.startswith("SigBlk:")]}}
    file.write(json.dumps(told) + "\\n")
from fake_rchd import FakeRchd
with FakeRchd(state, lambda peer: (peer.accept(), peer.log((1, b"remote\\n")), peer.exit(0))):
    time.sleep(20)
"""


@pytest.fixture
def born(client):
    """Runs clients that may start the program of the test as their rchd; whatever was born dies with the test."""
    program = os.path.join(client.project, "rchd.py")
    Path(program).write_text(BORN)

    def start(*words: str, program: str = program, env: dict[str, str] | None = None, **how):
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", DRIVER, program, *words],
            env={**client.environ, **(env or {})}, cwd=client.project,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how,
        )  # fmt: skip
        client.started.append(process)
        return process

    yield start
    with contextlib.suppress(FileNotFoundError):
        for line in Path(client.state, "born").read_text().splitlines():
            with contextlib.suppress(ProcessLookupError):
                os.kill(json.loads(line)["pid"], signal.SIGKILL)


def births(client) -> list[dict]:
    return [json.loads(line) for line in Path(client.state, "born").read_text().splitlines()]


class TestTheStart:
    def test_ds_10_gives_rchd_its_own_session_no_descriptors_and_a_clean_environment(self, client, born):
        extra, _ = os.pipe()
        env = {
            "SSH_AUTH_SOCK": "/agent", "XDG_CONFIG_HOME": "/c", "CARGO_HOME": "/secret", "RCH_LOG_LEVEL": "debug", "RCH_REQUIRE_REMOTE": "1",
            "AWS_SECRET_ACCESS_KEY": "x", "LANG": "C.UTF-8",
        }  # fmt: skip
        process = born("--", "make", env=env, pass_fds=[extra], start_new_session=True)
        out, err = process.communicate(timeout=60)
        os.close(extra)
        os.close(_)
        assert (process.returncode, out, err) == (0, b"remote\n", b"")
        (rchd,) = births(client)
        assert rchd["sid"] == rchd["pgid"] != process.pid
        assert rchd["cwd"] == "/"
        assert set(rchd["fds"]) <= {"0", "1", "2", "3"}  # 3: /proc/self/fd itself
        assert rchd["fds"]["0"] == "/dev/null"
        assert rchd["fds"]["1"] == rchd["fds"]["2"] == client.state + "/log/rchd.err"
        wanted = {"HOME", "PATH", "LANG", "SSH_AUTH_SOCK", "XDG_CONFIG_HOME", "RCH_LOG_LEVEL", "RCH_STATE_DIR"}
        assert set(rchd["environ"]) - {"LC_CTYPE"} == wanted  # LC_CTYPE: what an interpreter may set for itself

    def test_ds_06_happens_once_however_many_clients_come(self, client, born):
        running = [born("--", "make") for _ in range(6)]
        for process in running:
            out, err = process.communicate(timeout=90)
            assert (process.returncode, out, err) == (0, b"remote\n", b"")
        assert len(births(client)) == 1

    def test_outlives_the_client_and_its_group(self, client, born):
        born("--", "make").communicate(timeout=60)
        (rchd,) = births(client)
        os.kill(rchd["pid"], 0)
        assert client.run("--", "make").out == b"remote\n"

    def test_ds_06_that_fails_runs_the_command_here_at_once_and_cools_down(self, client, born):
        count = os.path.join(client.project, "count")
        program = f"-c\x1fimport sys; open({count!r}, 'a').write('x'); sys.exit('no inventory to be found')"
        process = born("--", "echo", "hi", program=program)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, b"hi\n")
        line = "[rch] local: no-daemon: rchd is not running, and rchd ended right after its start: no inventory to be found. Fix: rch daemon start\n"
        assert err.decode() == line
        out, err = born("--", "echo", "hi", program=program).communicate(timeout=60)
        assert out == b"hi\n"
        assert b"rchd could not be started" in err
        assert Path(count).read_text() == "x"
        lock = os.path.join(client.state, "run", "start.lock")
        past = time.time() - COOL_DOWN_S - 1
        os.utime(lock, (past, past))
        born("--", "echo", "hi", program=program).communicate(timeout=60)
        assert Path(count).read_text() == "xx"

    def test_of_one_that_never_answers_is_bounded(self, client, born):
        process = born("--", "echo", "hi", program="-c\x1fimport time; time.sleep(30)")
        begun = time.monotonic()
        out, err = process.communicate(timeout=60)
        assert out == b"hi\n"
        assert time.monotonic() - begun < 50
        found = err.decode().partition("rchd (pid ")[2].partition(")")[0]
        os.kill(int(found), signal.SIGKILL)
        assert "did not answer within 5 s" in err.decode()

    def test_is_recorded_with_the_namespaces_of_the_session(self, client, born):
        born("--", "make").communicate(timeout=60)
        recorded = json.loads(Path(client.state, "session.json").read_text())
        assert recorded["mnt"] == os.readlink("/proc/self/ns/mnt")
        assert recorded["boot"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    @pytest.mark.parametrize("switch", ["--require-remote", "--dry-run"])
    def test_serves_these_too(self, client, born, switch):
        assert born(switch, "--", "make").wait(60) == 0
        assert len(births(client)) == 1

    def test_is_not_tried_when_another_client_has_just_done_it(self, tmp_path, monkeypatch):
        monkeypatch.setattr(client_start, "_spawn", lambda *_: pytest.fail("a second rchd was started"))
        assert client_start.start_daemon(str(tmp_path), str(tmp_path / "run"), {}, lambda: True) == ""


class TestWhoMayNot:
    def test_ds_10_a_process_with_no_new_privs(self, client, born):
        process = born("--", "echo", "hi", preexec_fn=no_new_privs)
        out, err = process.communicate(timeout=60)
        assert out == b"hi\n"
        assert "this process is in a sandbox (no_new_privs), which may not start it" in err.decode()
        assert not os.path.exists(os.path.join(client.state, "born"))

    @pytest.mark.parametrize("namespaces", [["--unshare-pid", "--proc", "/proc"], [], ["--unshare-user"]])
    def test_ds_10_a_process_in_a_bubblewrap_sandbox(self, client, born, namespaces):
        if shutil.which("bwrap") is None:
            pytest.fail("bubblewrap is a requirement of the project; ./dev setup installs it")
        process = subprocess.run(
            ["bwrap", "--dev-bind", "/", "/", *namespaces, sys.executable, "-I", "-S", "-c", DRIVER, client.project + "/rchd.py", "--", "echo", "hi"],
            env=client.environ, cwd=client.project, capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert process.stdout == b"hi\n"
        assert b"no-daemon: rchd is not running, and this process is in " in process.stderr
        assert not os.path.exists(os.path.join(client.state, "born"))

    @pytest.mark.parametrize("flag", ["--mount", "--user", "--pid --fork --mount-proc"])
    def test_ds_10_a_process_in_namespaces_of_its_own_without_no_new_privs(self, tmp_path, flag):
        code = f"import sys; sys.path.append({ROOT!r}); from rch.client_start import confinement; print(confinement({str(tmp_path)!r}))"
        record_session(str(tmp_path))
        words = ["unshare", *flag.split(), sys.executable, "-I", "-S", "-c", code]
        result = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert result.stdout.startswith("this process is in "), result.stderr

    @pytest.mark.parametrize("flag", ["--mount", "--user"])
    def test_ds_10_also_when_nothing_is_recorded_yet(self, tmp_path, flag):
        code = f"import sys; sys.path.append({ROOT!r}); from rch.client_start import confinement; print(confinement({str(tmp_path)!r}))"
        words = ["unshare", flag, sys.executable, "-I", "-S", "-c", code]
        result = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert result.stdout.startswith("this process is in "), result.stderr

    def test_a_record_of_another_boot_or_a_damaged_one_counts_for_nothing(self, tmp_path):
        for content in (b'{"boot":"another","mnt":"mnt:[1]"}', b"{", b"", b"\xff"):
            (tmp_path / "session.json").write_bytes(content)
            assert confinement(str(tmp_path)) == ""

    def test_this_process_may(self, tmp_path):
        assert confinement(str(tmp_path)) == ""
        record_session(str(tmp_path))
        assert confinement(str(tmp_path)) == ""
        assert os.stat(tmp_path / "session.json").st_mode & 0o777 == 0o600

    def test_ic_08_a_job_starts_none(self, client, born):
        process = born("--", "echo", "hi", env={"RCH_ON_WORKER": "1"})
        assert process.communicate(timeout=60) == (b"hi\n", b"")
        assert not os.path.exists(os.path.join(client.state, "born"))

    @pytest.mark.parametrize("env", [{"RCH_BYPASS": "1"}, {"RCH_ENABLED": "0"}, {"RCH_LOCAL_ONLY": "1"}])
    def test_a_command_that_stays_here_starts_none(self, client, born, env):
        born("--", "true", env=env).communicate(timeout=60)
        assert not os.path.exists(os.path.join(client.state, "born"))


def no_new_privs() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)


class TestWhatRchdIsGiven:
    def test_a_11_is_a_login_and_the_variables_that_it_reads_once(self):
        kept = (
            "HOME",
            "PATH",
            "SSH_AUTH_SOCK",
            "LANG",
            "RCH_CONFIG",
            "RCH_STATE_DIR",
            "RCH_INVENTORY",
            "XDG_STATE_HOME",
        )
        given = (
            *kept,
            "RCH_WORKER",
            "RCH_REQUIRE_REMOTE",
            "RCH_TOKEN",
            "CC",
            "CARGO_HOME",
            "LD_PRELOAD",
            "PYTHONPATH",
            "OLDPWD",
        )
        assert set(daemon_environment(dict.fromkeys(given, "/x"))) == set(kept)

    def test_a_path_without_shims(self, tmp_path):
        (tmp_path / ".rch-shims").touch()
        assert daemon_environment({"PATH": f"{tmp_path}:/bin"})["PATH"] == "/bin"
        assert daemon_environment({})["PATH"]

    def test_an_absolute_interpreter_in_isolated_mode(self):
        argv = daemon_argv()
        assert argv[:2] == [sys.executable, "-I"]
        code = argv[3].replace(
            "from rch.daemon.__main__ import main; sys.exit(main())", "import rch; print(rch.__file__)"
        )
        out = subprocess.run(
            [argv[0], "-I", "-S", "-c", code], capture_output=True, text=True, check=True, cwd="/"
        ).stdout
        assert out.strip() == os.path.join(ROOT, "rch", "__init__.py")
