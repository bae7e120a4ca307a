"""``rch-wkr serve --socket``: whoever calls ``serve`` meanwhile is served by it, and notices nothing but the time."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from rch.testing.worker_process import WorkerRefused
from rch.worker import protocol
from rch.worker.build import build


@pytest.fixture
def warm(tmp_path):
    """A function: cache -> the warm process that listens for it."""
    started = []

    def start(cache, program=None):
        words = [sys.executable, "-m", "rch.worker"] if program is None else [sys.executable, program]
        process = subprocess.Popen(
            [*words, "serve", "--socket", "--cache", cache], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        started.append(process)
        deadline = time.monotonic() + 20
        while not os.path.exists(os.path.join(cache, "serve.sock")):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(10)
        process.stderr.close()


@pytest.fixture
def cache(tmp_path):
    return str(tmp_path / "cache")


def hello(worker):
    return worker.request("hello", {"protocol": protocol.PROTOCOL, "client": "test", "compression": ["none"]}).fields


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


def cold_while_warm(make_worker, cache):
    """A connection, and True if it is served by its own process (which then has a nursery as its child)."""
    worker = make_worker(cache=cache)
    hello(worker)
    return worker, bool(children(worker.process.pid))


class TestAWarmProcess:
    def test_serves_in_the_place_of_the_one_that_was_called(self, warm, cache, make_worker):
        process = warm(cache)
        worker, alone = cold_while_warm(make_worker, cache)
        assert not alone
        assert len(children(process.pid)) == 1
        assert hello(worker)["slots_total"] == 4  # what the called one was told

    def test_runs_jobs_with_the_environment_and_limits_of_the_called_one(self, warm, cache, make_worker, job):
        warm(cache)
        worker = make_worker(cache=cache)
        found = worker.run(job, ["sh", "-c", "ulimit -n; nproc"])
        here = subprocess.run(["sh", "-c", "ulimit -n"], capture_output=True, text=True, check=True).stdout
        assert found.stdout.decode().splitlines()[0] == here.strip()

    def test_gives_back_what_a_connection_held_when_it_ends(self, warm, cache, make_worker, job):
        warm(cache)
        first = make_worker(cache=cache)
        assert first.request("prepare", {"job": job, "slots": 4, "roots": []}).fields["slots"] == [0, 1, 2, 3]
        second = make_worker(cache=cache)
        with pytest.raises(WorkerRefused) as caught:
            second.request("prepare", {"job": f"{job}x", "slots": 1, "roots": []})
        assert caught.value.code == "busy"
        first.close()
        granted = second.request("prepare", {"job": f"{job}x", "slots": 1, "roots": [], "wait_s": 10.0})
        assert len(granted.fields["slots"]) == 1

    def test_ends_the_called_one_with_the_status_of_the_connection(self, warm, cache, make_worker):
        warm(cache)
        good, bad = make_worker(cache=cache), make_worker(cache=cache)
        good.close()
        assert good.process.returncode == 0
        bad.submit_payload(b"", flags=64)
        assert bad.process.wait(10) == 1

    def test_that_is_stopped_takes_nothing_along(self, warm, cache, make_worker, job):
        process = warm(cache)
        worker = make_worker(cache=cache)
        worker.start(job, ["sh", "-c", "sleep 1; echo done"])
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert worker.follow(job).stdout == b"done\n"
        other, alone = cold_while_warm(make_worker, cache)
        assert alone
        assert hello(other)["slots_total"] == 4

    def test_that_was_killed_is_not_missed(self, warm, cache, make_worker):
        process = warm(cache)
        process.kill()
        process.wait(10)
        assert os.path.exists(os.path.join(cache, "serve.sock"))
        assert cold_while_warm(make_worker, cache)[1]

    def test_that_hangs_costs_two_seconds(self, warm, cache, make_worker):
        process = warm(cache)
        process.send_signal(signal.SIGSTOP)
        assert cold_while_warm(make_worker, cache)[1]

    def test_is_the_only_one_of_its_cache(self, warm, cache):
        warm(cache)
        second = subprocess.run(
            [sys.executable, "-m", "rch.worker", "serve", "--socket", "--cache", cache],
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert second.returncode == 1
        assert second.stderr.decode() == f"rch-wkr: another rch-wkr serve --socket has {cache}\n"

    def test_leaves_another_version_to_itself(self, warm, cache, make_worker, tmp_path):
        program = str(tmp_path / "older")
        build(program)
        warm(cache, program)
        assert cold_while_warm(make_worker, cache)[1]  # the source tree's build is "source"

    def test_can_be_asked_by_its_own_account_alone(self, warm, cache):
        warm(cache)
        assert os.stat(os.path.join(cache, "serve.sock")).st_mode & 0o777 == 0o600

    @pytest.mark.skipif(os.geteuid() != 0, reason="to be somebody else needs root; the CI machine (root) runs this")
    def test_refuses_another_account_that_gets_at_the_socket(self, warm, cache):
        warm(cache)
        os.chmod(cache, 0o711)
        os.chmod(os.path.join(cache, "serve.sock"), 0o666)
        ask = (
            "import json, socket\n"
            "peer = socket.socket(socket.AF_UNIX)\n"
            "peer.settimeout(20)\n"
            "peer.connect('serve.sock')\n"
            "peer.sendall(json.dumps({'build': 'source'}).encode() + b'\\n')\n"
            "print(peer.recv(1))\n"
        )
        for user, said in ((0, "b'R'\n"), (65534, "b''\n")):
            words = ["/usr/bin/python3", "-I", "-c", ask]
            done = subprocess.run(words, cwd=cache, user=user, capture_output=True, text=True, timeout=30, check=False)
            assert (done.stdout, done.stderr) == (said, "")

    def test_ends_a_caller_that_says_nothing_of_sense(self, warm, cache, make_worker):
        warm(cache)
        for said in (b"\n", b"[]\n", json.dumps({"build": "source"}).encode() + b"\n", b"x" * 100_000):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(20)
                connection.connect(os.path.join(cache, "serve.sock"))
                connection.sendall(said)
                connection.shutdown(socket.SHUT_WR)  # and no descriptors come
                with contextlib.suppress(ConnectionResetError):  # ended before it had read all
                    assert connection.recv(100).removeprefix(b"R") == b""
        assert not cold_while_warm(make_worker, cache)[1]
