"""The channel: framing, compression, limits, and requests that must not disturb each other."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest

from rch.testing.worker_process import WorkerProcess, WorkerRefused
from rch.testing.worker_root import WorkerRoot, new_job
from rch.testing.worker_root import file_item as f
from rch.worker import protocol
from rch.worker._channel import pack_zstd, unpack_zstd
from rch.worker.build import build

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


class TestTheChannel:
    def test_it_introduces_itself_with_the_protocol(self, worker):
        assert worker.preface == b"RCH-WKR %d\n" % protocol.PROTOCOL

    def test_hello_tells_what_a_client_must_know(self, worker):
        hello = worker.request("hello", {"protocol": protocol.PROTOCOL, "client": "c", "compression": ["none"]}).fields
        assert hello["protocol"] == protocol.PROTOCOL
        assert hello["slots_total"] == 4
        assert hello["compression"] == "none"
        assert hello["cache"] == worker.cache_dir
        assert hello["uid"] == os.getuid()
        assert hello["sandbox"] == {"ok": True, "why": ""}
        assert abs(hello["time_ns"] - time.time_ns()) < 20 * 10**9

    def test_ds_01_another_protocol_is_refused_naming_both(self, worker):
        with pytest.raises(WorkerRefused, match=rf"protocol 99 .* speaks {protocol.PROTOCOL}"):
            worker.request("hello", {"protocol": 99})

    def test_ds_02_a_hundred_requests_at_once_get_their_own_answers(self, worker):
        futures = {}
        for n in range(100):
            job = f"nobody-{n}"
            op = "status" if n % 2 else "read"
            futures[job] = worker.submit(op, {"job": job, "offset": 0, "wait_s": 5})
        for job, future in futures.items():
            fields = future.result(60).fields
            assert (fields["error"], job in fields["message"]) == ("no-such-job", True)

    def test_a_long_poll_holds_nobody_up(self, worker, job):
        worker.start(job, ["sleep", "600"])
        polls = [worker.submit("read", {"job": job, "offset": 0, "wait_s": 30}) for _ in range(20)]
        began = time.monotonic()
        worker.request("ping")
        assert time.monotonic() - began < 10
        worker.request("signal", {"job": job, "signal": "KILL"})
        assert all(poll.result(30).fields["ended"] for poll in polls)

    @pytest.mark.parametrize(
        "fields", [{}, {"op": None}, {"op": 5}, {"op": "answer"}, {"op": "_do_ping"}, {"op": "__init__"}]
    )
    def test_an_unknown_operation_is_a_bad_request(self, worker, fields):
        answer = worker.submit_payload(protocol.pack(fields)).result(30)
        assert answer.fields["error"] == "bad-request"
        worker.request("ping")

    @pytest.mark.parametrize(
        "fields",
        [
            {"op": "prepare", "job": ["x"]},
            {"op": "prepare", "job": "j", "slots": "many"},
            {"op": "prepare", "job": "j", "slots": -1},
            {"op": "prepare", "job": "j", "slots": float("nan")},
            {"op": "prepare", "job": "j", "slots": 0, "roots": [{"key": "ab" * 16, "changes": "x"}]},
            {"op": "prepare", "job": "j", "slots": 0, "roots": [{"key": "ab" * 16, "changes": [["a", "f"]]}]},
            {"op": "prepare", "job": "j", "slots": 0, "roots": [{"key": "ab" * 16, "bodies": [["a"]]}]},
            {"op": "prepare", "job": "j", "slots": 0, "roots": {"key": 1}},
            {"op": "prepare", "job": "j", "slots": 0, "roots": 7},
            {"op": "read", "job": "j", "offset": -1},
            {"op": "delta", "job": "j", "root": None},
            {"op": "index", "job": "j", "root": "ab" * 16},
            {"op": "cache_missing", "cache": "../jobs", "paths": []},
            {"op": "cache_missing", "cache": "cargo", "paths": ["../../jobs"]},
            {"op": "cache_adopt", "cache": "cargo", "staging": "../../jobs", "paths": []},
            {"op": "gc", "keep": {}},
            {"op": "start", "job": "j", "spec": None},
            {"op": "signal", "job": "j", "signal": "x"},
        ],
    )
    def test_malformed_requests_are_refused_and_nothing_else_suffers(self, worker, fields):
        answer = worker.submit_payload(protocol.pack(fields)).result(30)
        assert answer.fields["ok"] is False
        assert answer.fields["error"] in ("bad-request", "no-such-job", "no-such-root")
        worker.request("ping")

    @pytest.mark.parametrize(
        "data",
        [
            protocol.HEADER.pack(protocol.MAX_MESSAGE + 1, 1, 0),
            protocol.HEADER.pack(4, 1, 0) + b"\0\0\0\7",
            protocol.HEADER.pack(8, 1, 0) + b"\0\0\0\4null",
            protocol.HEADER.pack(2, 1, 0) + b"xx",
            protocol.HEADER.pack(12, 1, 0) + protocol.JSON_LENGTH.pack(8) + b"\xff" * 8,
            protocol.HEADER.pack(20, 1, 1) + protocol.UNPACKED.pack(10) + b"not zstd at all"[:12],
            protocol.HEADER.pack(6, 1, 64) + b"\0\0\0\2{}",
        ],
    )
    def test_a_broken_frame_ends_the_connection(self, worker, data):
        worker._stdin.write(data)
        worker._stdin.flush()
        assert worker.process.wait(30) == 1

    def test_a_half_message_and_the_end_are_just_the_end(self, worker):
        worker._stdin.write(protocol.HEADER.pack(100, 1, 0) + b"half")
        worker._stdin.close()
        assert worker.process.wait(30) == 0

    def test_nothing_but_messages_is_ever_written(self, make_worker, job):
        """stderr may be merged into the channel by whoever connects: noise after the preface would break it."""
        worker = make_worker()
        worker.submit_payload(protocol.pack({"op": "prepare", "job": "j", "roots": 7})).result(30)
        worker.run(job, ["sh", "-c", "echo x >&2"])
        for descriptor in (1, 2):
            target = os.readlink(f"/proc/{worker.process.pid}/fd/{descriptor}")
            assert "pipe" not in target

    def test_its_end_leaves_no_process_of_it(self, make_worker):
        worker = make_worker()
        worker.request("ping")
        mark = worker.cache_dir.encode()
        worker.close()
        until = time.monotonic() + 20
        while time.monotonic() < until:
            left = [pid for pid in os.listdir("/proc") if pid.isdigit() and mark in _cmdline(pid)]
            if not left:
                return
            time.sleep(0.05)
        raise AssertionError(left)


def _cmdline(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


class TestCompression:
    @pytest.mark.parametrize("size", [0, 1, 4096, 3 << 20])
    def test_what_was_packed_is_unpacked(self, size):
        data = os.urandom(size // 2) + bytes(size - size // 2)
        assert unpack_zstd(pack_zstd(data)) == data

    def test_a_stream_of_another_size_than_declared_ends_it(self):
        packed = pack_zstd(bytes(100000))
        for declared in (99999, 100001, 0):
            with pytest.raises(protocol.ProtocolError):
                unpack_zstd(protocol.UNPACKED.pack(declared) + packed[8:])

    def test_a_bomb_is_cut_at_its_declared_size(self):
        packed = pack_zstd(bytes(48 << 20))
        assert len(packed) < 10000
        with pytest.raises(protocol.ProtocolError):
            unpack_zstd(protocol.UNPACKED.pack(1000) + packed[8:])
        with pytest.raises(protocol.ProtocolError):
            unpack_zstd(protocol.UNPACKED.pack(1 << 40) + packed[8:])

    def test_large_answers_are_compressed_once_agreed_and_small_ones_never(self, worker):
        hello = {"protocol": protocol.PROTOCOL, "compression": ["zstd", "none"]}
        assert worker.request("hello", hello).fields["compression"] == "zstd"
        root = WorkerRoot(worker)
        root.hold()
        payload = protocol.pack(
            {"op": "sync", "job": root.job, "root": root.key, "base": root.generation, "changes": _many()}
        )
        answer = worker.submit_payload(pack_zstd(payload), protocol.FLAG_ZSTD).result(60)
        assert answer.fields["ok"] is True
        assert len(root.index()) == 2000

    def test_without_the_program_none_is_agreed(self, make_worker, tmp_path):
        bin_dir = tmp_path / "bin"
        bin_dir.mkdir()
        worker = make_worker(env={"PATH": str(bin_dir)})
        found = worker.request("hello", {"protocol": 1, "compression": ["zstd", "none"]}).fields["compression"]
        usual = any(os.access(f"{d}/zstd", os.X_OK) for d in ("/usr/local/bin", "/usr/bin", "/bin"))
        assert found == ("zstd" if usual else "none")


def _many():
    return [[f"directory-{n:05d}", "d", 0o755, 0, 10**18, ""] for n in range(2000)]


class TestTheZipapp:
    @pytest.fixture
    def program(self, tmp_path):
        path = str(tmp_path / "rch-wkr")
        build(path)
        return path

    def test_it_is_the_same_bytes_every_time(self, program, tmp_path):
        again = tmp_path / "again"
        with open(program, "rb") as file:
            assert build(str(again)) and again.read_bytes() == file.read()
        assert os.access(program, os.X_OK)
        assert again.read_bytes().startswith(b"#!/usr/bin/env python3\n")

    def test_it_holds_nothing_but_the_worker(self, program):
        import zipfile

        with zipfile.ZipFile(program) as archive:
            names = archive.namelist()
        assert all(name in ("__main__.py", "rch/__init__.py") or name.startswith("rch/worker/") for name in names)
        assert "rch/worker/_runner.py" in names
        assert not [name for name in names if "build" in name or "pycache" in name]

    def test_ds_09_it_imports_nothing_but_the_standard_library(self, program):
        code = (
            "import sys\nsys.path.insert(0, sys.argv[1])\nimport zipfile, importlib\n"
            "for n in zipfile.ZipFile(sys.argv[1]).namelist():\n"
            "  if n.startswith('rch/worker/') and not n.endswith(('_runner.py', '__init__.py')):\n"
            "    importlib.import_module(n[:-3].replace('/', '.'))\n"
            "print(sorted({m.split('.')[0] for m in sys.modules} - set(sys.stdlib_module_names) - {'rch', '__main__'}))"
        )
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code, program], capture_output=True, check=False, timeout=60
        )
        assert done.stdout.strip() == b"[]", done.stderr.decode()

    def test_it_runs_a_job_and_tells_its_build(self, program, make_worker, job):
        import hashlib

        worker = make_worker(program=program)
        hello = worker.request("hello", {"protocol": 1, "compression": []}).fields
        with open(program, "rb") as file:
            assert hello["build"] == hashlib.sha256(file.read()).hexdigest()
        assert worker.run(job, ["echo", "from the zipapp"]).stdout == b"from the zipapp\n"

    def test_it_runs_a_job_in_a_locale_that_is_not_utf_8(self, program, make_worker):
        root = WorkerRoot(
            make_worker(program=program, env={"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"})
        )
        root.hold()
        root.sync(f("ü\udcff", b"x"))
        root.run("cat *; echo y > \"$(printf '\\303\\244\\376')\"")
        assert root.delta().bodies == {"ä\udcfe": b"y\n"}

    @pytest.mark.skipif(
        shutil.which("python3.9") is None and not os.path.exists(os.path.expanduser("~/.pyenv/versions/3.9.18")),
        reason="no Python 3.9 here; the molecule scenario of rch_worker on Debian 11 runs it",
    )
    def test_it_runs_under_python_3_9(self, program, make_worker):
        own = os.path.expanduser("~/.pyenv/versions/3.9.18/bin/python3.9")
        python = own if os.path.exists(own) else shutil.which("python3.9")
        root = WorkerRoot(make_worker(program=program, python=python))
        root.hold()
        root.sync(f("a", b"1"))
        assert root.run("cat a; echo 2 > b; exit 3").ending == (3, None, "exited")
        assert root.delta().bodies == {"b": b"2\n"}

    @pytest.mark.parametrize("command", ["health", "slots", "facts", "bench", "gc", "version"])
    def test_a_27_a_person_can_ask_it_without_rchd(self, program, tmp_path, command):
        argv = [sys.executable, program, command]
        if command != "version":
            argv += ["--cache", str(tmp_path / "cache")]
        done = subprocess.run(argv, capture_output=True, check=True, timeout=120)
        assert json.loads(done.stdout)
        assert done.stderr == b""

    def test_a_mistake_on_the_command_line_is_exit_2_and_a_bad_place_one_line(self, program):
        done = subprocess.run([sys.executable, program, "frobnicate"], capture_output=True, check=False, timeout=60)
        assert done.returncode == 2
        done = subprocess.run(
            [sys.executable, program, "serve", "--slots", "0"], capture_output=True, check=False, timeout=60
        )
        assert done.returncode == 2
        done = subprocess.run(
            [sys.executable, program, "health", "--cache", "/proc/nope"], capture_output=True, check=False, timeout=60
        )
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1


class TestJobsOfTheWorker:
    def test_they_are_listed_with_state_and_command(self, worker):
        done, running = new_job(), new_job()
        worker.run(done, ["echo", "a b"], client="me")
        worker.start(running, ["sleep", "600"])
        listed = {row["id"]: row for row in worker.request("jobs").fields["jobs"]}
        assert listed[done]["state"] == "done"
        assert listed[done]["client"] == "me"
        assert listed[done]["command"] == ["echo", "a b"]
        assert listed[running]["state"] == "running"
        assert worker.request("health").fields["jobs"] == 1
        worker.request("signal", {"job": running, "signal": "KILL"})

    def test_release_with_collect_takes_the_directory_away_but_never_of_a_running_job(self, worker, job):
        worker.start(job, ["sleep", "600"])
        with pytest.raises(WorkerRefused, match="busy"):
            worker.request("release", {"job": job, "collect": True})
        worker.request("signal", {"job": job, "signal": "KILL"})
        worker.follow(job)
        worker.request("release", {"job": job, "collect": True})
        with pytest.raises(WorkerRefused, match="no-such-job"):
            worker.request("status", {"job": job})
        worker.request("release", {"job": job, "collect": True})

    def test_se_01_everything_is_for_this_account_alone(self, root):
        root.sync(f("a", b"1"))
        root.run("echo x > b")
        cache = root.worker.cache_dir
        assert os.stat(cache).st_mode & 0o777 == 0o700
        for parent, names, files in os.walk(cache):
            if "/tree" in parent or "/tmp/" in parent + "/":
                continue
            for name in names + files:
                if name not in ("tree", "tmp"):
                    path = os.path.join(parent, name)
                    loose = os.lstat(path).st_mode & 0o077
                    assert not loose or "/etc" in parent or "/jobs/" in parent, path

    def test_a_full_disk_is_told_as_such(self, make_worker, tmp_path, job):
        """Where a small file system can be mounted (root with a loop device)."""
        image, place = tmp_path / "image", tmp_path / "small"
        place.mkdir()
        with open(image, "wb") as file:
            file.truncate(24 << 20)
        made = subprocess.run(["/sbin/mkfs.ext4", "-q", "-m0", str(image)], capture_output=True, check=False)
        mounted = made.returncode == 0 and (
            subprocess.run(["mount", "-o", "loop", str(image), str(place)], capture_output=True, check=False).returncode
            == 0
        )
        if not mounted:
            pytest.skip("needs root and a loop device: the lab machine of ./dev test --all")
        try:
            worker = make_worker(cache=place / "cache")
            root = WorkerRoot(worker)
            root.hold()
            root.sync(f("a", b"1"))
            with pytest.raises(WorkerRefused, match="disk-full"):
                root.sync(f("b", os.urandom(30 << 20)))
            assert set(root.index()) >= {"a"}
            result = root.run("head -c 40000000 /dev/urandom > big 2>/dev/null; echo out of room; exit 1")
            assert result.rc["reason"] in ("exited", "killed")
            with pytest.raises(WorkerRefused, match="disk-full"):
                root.run("true")
            os.unlink(root.path("big"))
            assert root.run("echo again").stdout == b"again\n"
            flood = worker.run(job, ["sh", "-c", "head -c 60000000 /dev/zero; sleep 600"])
            assert flood.rc["reason"] == "killed"
            assert "log could not be written" in flood.rc["message"]
            worker.close()
        finally:
            subprocess.run(["umount", "-l", str(place)], check=True)


class TestManyThreads:
    def test_ex_11_a_job_outlives_the_threads_that_started_it(self, worker, job):
        starter = threading.Thread(target=worker.start, args=(job, ["sh", "-c", "sleep 1.5; echo alive"]))
        starter.start()
        starter.join()
        for _ in range(20):
            threading.Thread(target=worker.request, args=("ping",)).start()
        assert worker.follow(job).stdout == b"alive\n"


def test_the_harness_tells_an_end_from_an_answer(tmp_path):
    worker = WorkerProcess(str(tmp_path / "c"))
    worker.kill()
    with pytest.raises((ConnectionError, BrokenPipeError)):
        worker.request("ping", timeout_s=20)
    worker.close()


class TestAConfinedServe:
    def test_refuses_a_job_without_a_sandbox_and_runs_one_with(self, make_worker, job):
        worker = make_worker(arguments=["--confined"])
        with pytest.raises(WorkerRefused) as caught:
            worker.start(f"{job}x", ["id"], sandbox="none")
        assert caught.value.code == "bad-request"
        assert "--confined: a job needs a sandbox" in caught.value.message
        assert worker.run(job, ["id", "-u"]).stdout == b"1234\n"
