"""A command run on a worker is told apart by nothing: status, bytes, order, input, arguments, place, variables."""

import fcntl
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import termios
import time

import pytest

from rch.testing.fixtures import RchState


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("embedded_lab", marks=pytest.mark.sshd, id="embedded"),
        pytest.param("container_lab", marks=pytest.mark.container, id="container"),
    ],
)
def station(request, lab_place):
    """One workstation for the whole file: starting rchd for each of these questions would be most of the time."""
    lab = request.getfixturevalue(request.param)
    state = RchState(os.path.join(lab_place, f"io-{request.param}"), lab)
    yield state
    state.close()


@pytest.fixture
def there(station, project_copy):
    """Run a free command on the worker, by name: ``there(*argv, **more) -> CompletedProcess``."""
    project = project_copy("hello-c")

    def run(*argv, **more):
        more.setdefault("cwd", project)
        return station.exec(*argv, options=("--worker", station.lab.worker.name, *more.pop("options", ())), **more)

    run.state, run.project = station, project
    run.words = ["rch", "exec", "--worker", station.lab.worker.name, "--"]
    return run


class TestTheStatus:
    @pytest.mark.parametrize("code", [0, 1, 42, 101, 102, 103, 124, 137])
    def test_is_the_commands_own(self, there, code):
        assert there("sh", "-c", f"exit {code}").returncode == code

    @pytest.mark.parametrize("name", ["KILL", "SEGV", "TERM"])
    def test_ex_05_death_by_signal_n_is_128_plus_n(self, there, name):
        assert there("sh", "-c", f"kill -{name} $$").returncode == 128 + getattr(signal, f"SIG{name}")

    def test_of_a_command_that_is_not_there_is_127(self, there):
        assert there("/no/such/program").returncode == 127


class TestTheOutput:
    def test_keeps_stdout_and_stderr_apart_to_the_last_byte_over_20_000_lines(self, there):
        script = "i=0; while [ $i -lt 20000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done"
        done = there("sh", "-c", script)
        assert done.stdout == b"".join(b"out %d\n" % i for i in range(20000))
        assert done.stderr == b"".join(b"err %d\n" % i for i in range(20000))

    def test_os_05_brings_50_mb_whole(self, there):
        done = there("sh", "-c", "head -c 50000000 /dev/zero | tr '\\0' x")
        assert done.returncode == 0
        assert len(done.stdout) == 50_000_000
        assert done.stdout.count(b"x") == 50_000_000

    def test_is_bytes_not_text(self, there):
        done = there("printf", r"\377\000\200 no newline")
        assert done.stdout == b"\xff\x00\x80 no newline"

    def test_os_09_one_file_for_both_keeps_the_order_of_4_000_lines(self, there):
        script = "i=0; while [ $i -lt 2000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done"
        done = subprocess.run(
            [*there.words, "sh", "-c", script],
            cwd=there.project,
            env=there.state.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )
        assert done.stdout == b"".join(b"out %d\nerr %d\n" % (i, i) for i in range(2000))

    def test_os_07_a_line_shows_while_the_command_goes_on(self, there):
        process = subprocess.Popen(
            [*there.words, "sh", "-c", "echo first; read line"],
            cwd=there.project,
            env=there.state.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout.readline() == b"first\n"
        process.communicate(b"go\n", timeout=30)
        assert process.returncode == 0


class TestTheInput:
    def test_from_a_pipe_arrives_with_its_end(self, there):
        data = bytes(range(256)) * 4000
        assert there("cat", data=data).stdout == data

    def test_from_a_file_arrives(self, there, tmp_path):
        path = tmp_path / "input"
        path.write_bytes(b"from a file\n" * 1000)
        with path.open("rb") as file:
            done = subprocess.run(
                [*there.words, "cat"], cwd=there.project, env=there.state.environment, stdin=file,
                capture_output=True, timeout=60, check=False,
            )  # fmt: skip
        assert done.stdout == path.read_bytes()

    def test_from_a_socket_arrives(self, there):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(b"through a socket\n")
            ours.shutdown(socket.SHUT_WR)
            done = subprocess.run(
                [*there.words, "cat"], cwd=there.project, env=there.state.environment, stdin=theirs,
                capture_output=True, timeout=60, check=False,
            )  # fmt: skip
        assert done.stdout == b"through a socket\n"

    def test_a_job_that_does_not_read_ends_all_the_same(self, there):
        assert there("true", data=b"x" * 3_000_000).returncode == 0


class TestATerminal:
    def run(self, there, *argv):
        """(what the terminal showed, status) of a command whose 0, 1 and 2 are a terminal of 31 x 117."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 117, 0, 0))
        process = subprocess.Popen(
            [*there.words, *argv], cwd=there.project, env=there.state.environment, stdin=slave, stdout=slave,
            stderr=slave, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        seen = b""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if select.select([master], [], [], 0.2)[0]:
                try:
                    data = os.read(master, 65536)
                except OSError:
                    break
                if not data:
                    break
                seen += data
            elif process.poll() is not None:
                break
        os.close(master)
        return seen, process.wait(30)

    def test_is_a_terminal_there_with_the_same_size(self, there):
        seen, status = self.run(there, "sh", "-c", "test -t 1 && test -t 2 && stty size <&1")
        assert status == 0
        assert b"31 117" in seen

    def test_is_not_read(self, there):
        seen, status = self.run(there, "sh", "-c", "test -t 0 || echo no terminal; cat; echo end")
        assert status == 0
        assert b"no terminal" in seen
        assert b"end" in seen

    def test_a_pipe_stays_a_pipe(self, there):
        assert there("sh", "-c", "test -t 1 || test -t 2 || echo pipes").stdout == b"pipes\n"


class TestTheWords:
    def test_ic_02_arrive_as_they_are(self, there):
        words = ["", "a b", "$HOME", ";x", "*", "'", '"', "two\nlines", "é", "\\", "-n", "`id`", "$(id)", "~"]
        done = there("sh", "-c", "printf '%s\\0' \"$@\"", "sh", *words)
        assert done.stdout.decode().split("\0")[:-1] == words

    def test_need_not_be_utf_8(self, there):
        done = there("printf", "%s", os.fsdecode(b"\xff\xfe"))
        assert done.stdout == b"\xff\xfe"


class TestThePlace:
    def test_is_the_callers_directory_below_the_root(self, there):
        below = os.path.join(there.project, "sub dir")
        os.mkdir(below)
        assert there("pwd", cwd=below).stdout.decode() == below + "\n"

    def test_pm_09_is_inhabited_by_the_caller(self, there):
        script = "id -u; id -g; id -un; hostname; umask"
        here = subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout
        assert there("sh", "-c", script).stdout == here

    def test_has_a_home_and_a_tmp_of_its_own(self, there):
        done = there("sh", "-c", 'ls -A "$HOME"; ls -A /tmp; echo x >/tmp/rch-mark && cat /tmp/rch-mark')
        own = {os.path.relpath(there.project, "/tmp").split("/")[0].encode(), b"x"}  # the root's own parent may show
        assert set(done.stdout.split()) <= own
        assert not os.path.exists("/tmp/rch-mark")


class TestTheVariables:
    def test_te_03_of_the_build_arrive_and_ours_do_not(self, there):
        env = {"CFLAGS": "-O3 -g", "RCH_VERBOSE": "0", "RCH_QUIET": "1", "SSH_AUTH_SOCK": "/x", "MY_TOKEN": "secret"}
        seen = there("env", env=env).stdout.decode()
        names = {line.split("=")[0] for line in seen.splitlines()}
        assert "CFLAGS=-O3 -g" in seen
        assert {"RCH_VERBOSE", "RCH_QUIET", "RCH_STATE_DIR", "SSH_AUTH_SOCK", "MY_TOKEN"}.isdisjoint(names)
        assert "RCH_ON_WORKER=1" in seen
        assert "RCH_JOB=j-" in seen
