"""One suite over every executor: what a worker promises, whoever plays it. A new executor adds a fixture, no case."""

import contextlib
import itertools
import os
import threading
import time

import pytest

from rch.errors import Unreachable, WorkerFault
from rch.execute.local import LocalExecutor
from rch.execute.mock import FaultPlan, MockExecutor, MockWorker
from rch.execute.ssh import SshExecutor
from rch.fleet.model import Declared, Worker
from rch.testing.worker_root import can_limit_memory
from rch.worker.protocol import INLINE_LIMIT, PROTOCOL, hash_bytes, log_frames

NUMBERS = itertools.count()
OLD = 1_600_000_000_000_000_000
ROOT = "/srv/contract root"


def entry(path, content=b"", kind="f", mode=0o644, mtime_ns=OLD):
    value = {"f": hash_bytes(content) if kind == "f" else "", "d": "", "l": content}[kind]
    return [path, kind, 0 if kind == "l" else mode, len(content) if kind == "f" else 0, mtime_ns, value]


class Bench:
    """An executor with short ways to say what a case needs."""

    def __init__(self, executor):
        self.executor = executor
        self.hello = executor.connect()
        self.key = os.urandom(16).hex()
        self.jobs = []

    def job(self):
        self.jobs.append(f"j-{os.getpid():x}-{next(NUMBERS)}")
        return self.jobs[-1]

    def ask(self, op, body=b"", **fields):
        return self.executor.request(op, fields, body, timeout_s=30)

    def prepare(self, job=None, *, slots=1, wait_s=0.0, root=True, **part):
        job = job or self.job()
        body = part.pop("body", b"")
        spec = part.pop("spec", None)
        roots = [{"key": self.key, "path": ROOT, "base": "", **part}] if root else []
        fields = {"job": job, "slots": slots, "wait_s": wait_s, "roots": roots}
        if spec is not None:
            fields["spec"] = {**spec, "id": job}
        return job, self.executor.request("prepare", fields, body, timeout_s=30).fields

    def sync(self, job, files=(), deletes=(), base=None, entries=()):
        """Push *files* {path: content} and other *entries*; the new generation."""
        rows = [entry(p, c) for p, c in dict(files).items()] + list(entries)
        bodies = [[p, len(c)] for p, c in dict(files).items()]
        base = self.generation(job) if base is None else base
        return self.ask(
            "sync", b"".join(dict(files).values()), job=job, root=self.key, base=base, changes=rows,
            deletes=list(deletes), bodies=bodies, exact=[],
        ).fields["generation"]  # fmt: skip

    def generation(self, job):
        return self.ask("index", job=job, root=self.key).fields["generation"]

    def paths(self, job):
        return {row[0]: row for row in self.ask("index", job=job, root=self.key).fields["entries"]}

    def spec(self, job, *argv, **more):
        return {
            "id": job, "argv": list(argv), "cwd": ROOT, "env": {"PATH": "/usr/bin:/bin", "HOME": "/root", "A": "b c"},
            "roots": [{"key": self.key, "path": ROOT, "mode": "rw"}], "binds": [], "files": [], "uid": os.getuid(),
            "gid": os.getgid(), "user": "caller", "group": "caller", "hostname": "here", "umask": 0o022,
            "home": "/root", "tmpdirs": ["/tmp"], "network": "host", "fds": {"0": "null", "1": "pipe", "2": "pipe"},
            "rows": 24, "cols": 80, "timeout_s": 30, "memory_bytes": None, "cargo_home": None, "fetch": [],
            "sandbox": "required", "kind": "command", "client": "contract", **more,
        }  # fmt: skip

    def start(self, *argv, job=None, files=(), **more):
        if job is None:
            job, _ = self.prepare()
        self.sync(job, files)
        self.ask("start", job=job, spec=self.spec(job, *argv, **more))
        return job

    def read_all(self, job, offset=0):
        """(log bytes from *offset*, rc)."""
        data = b""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            answer = self.ask("read", job=job, offset=offset + len(data), max=65536, wait_s=5)
            data += answer.body
            assert answer.fields["next"] == offset + len(data)
            if answer.fields["ended"]:
                return data, answer.fields["rc"]
        raise AssertionError("the job did not end")

    def run(self, *argv, **more):
        """(stdout, stderr, rc) of a job."""
        job = self.start(*argv, **more)
        data, rc = self.read_all(job)
        streams = {1: b"", 2: b""}
        for stream, _time, payload in log_frames(data):
            if stream:
                streams[stream] += payload
        return streams[1], streams[2], rc

    def delta(self, job, since, inline=INLINE_LIMIT):
        return self.ask("delta", job=job, root=self.key, since=since, inline=inline)

    def close(self):
        for job in self.jobs:
            with contextlib.suppress(WorkerFault, Unreachable):
                if self.ask("status", job=job).fields["state"] == "running":
                    self.ask("signal", job=job, signal="KILL")
                    self.read_all(job)
            with contextlib.suppress(WorkerFault, Unreachable):
                self.ask("release", job=job, collect=True)
        self.executor.close()


def make_mock(_request, _tmp):
    return MockExecutor(Worker(Declared("mock", "mock", slots=2)), MockWorker(slots=2))


def make_local(_request, tmp):
    return LocalExecutor(
        Worker(Declared("local", "localhost", slots=2)), directory=str(tmp / "cache"), client="contract"
    )


def make_ssh(request, tmp):
    worker = request.getfixturevalue("embedded_worker")
    declared = Declared(
        worker.name, worker.host, worker.port, worker.user, worker.client_key, worker.known_hosts, slots=2,
        cache_dir=worker.cache_dir, ssh_options=("-F", "/dev/null"),
    )  # fmt: skip
    (tmp / "r").mkdir()
    return SshExecutor(Worker(declared), run_dir=str(tmp / "r"), client="contract")


@pytest.fixture(
    params=[make_mock, make_local, pytest.param(make_ssh, marks=pytest.mark.sshd)], ids=lambda f: f.__name__[5:]
)
def bench(request, tmp_path_factory):
    made = Bench(request.param(request, tmp_path_factory.mktemp("x")))
    yield made
    made.close()


def refusal(code, act, *args, **more):
    with pytest.raises(WorkerFault) as caught:
        act(*args, **more)
    assert caught.value.code == code, caught.value.message


class TestAConnection:
    def test_speaks_our_protocol_and_can_be_opened_twice(self, bench):
        assert bench.hello.protocol == PROTOCOL
        assert bench.executor.connect().boot_id == bench.hello.boot_id

    def test_knows_the_workers_clock(self, bench):
        bench.ask("ping")
        assert abs(bench.executor.clock_offset_ns()) < 10**9

    def test_says_how_the_worker_is(self, bench):
        fields = bench.ask("health").fields
        assert fields["slots_total"] == 2
        assert fields["disk_free"] > 0

    def test_a_21_says_which_programs_it_lacks(self, bench):
        rows = [["/no/such/sh", "/bin/sh"], ["/no/such/program"], []]
        if bench.executor.worker.name == "mock":
            bench.executor.mock.lacks = {"program"}
            rows.pop()
        missing = bench.ask("programs", programs=rows).fields["missing"]
        assert missing == list(range(1, len(rows)))

    def test_refuses_an_unknown_operation(self, bench):
        refusal("bad-request", bench.ask, "no-such-thing")

    def test_can_be_closed_twice(self, bench):
        bench.executor.close()
        bench.executor.close()
        assert not bench.executor.connected


class TestSlots:
    def test_are_granted_and_given_back(self, bench):
        job, answer = bench.prepare(slots=2, root=False)
        assert sorted(answer["slots"]) == [0, 1]
        refusal("busy", bench.prepare, slots=1, root=False)
        bench.ask("release", job=job)
        assert len(bench.prepare(slots=1, root=False)[1]["slots"]) == 1

    def test_asking_twice_for_a_job_takes_no_more(self, bench):
        job, first = bench.prepare(slots=1, root=False)
        assert bench.prepare(job, slots=1, root=False)[1]["slots"] == first["slots"]
        assert len(bench.prepare(slots=1, root=False)[1]["slots"]) == 1

    def test_are_waited_for(self, bench):
        job, _ = bench.prepare(slots=2, root=False)
        timer = threading.Timer(0.3, bench.ask, ("release",), {"job": job})
        timer.start()
        assert len(bench.prepare(slots=2, wait_s=20, root=False)[1]["slots"]) == 2
        timer.join()

    def test_are_free_again_when_the_job_has_ended(self, bench):
        job, _ = bench.prepare(slots=2)
        bench.start("true", job=job)
        bench.read_all(job)
        assert len(bench.prepare(slots=2, wait_s=5, root=False)[1]["slots"]) == 2

    def test_of_a_lost_connection_without_job_are_free(self, bench):
        bench.prepare(slots=2, root=False)
        bench.executor.close()
        bench.executor.connect()
        assert len(bench.prepare(slots=2, wait_s=5, root=False)[1]["slots"]) == 2


class TestATree:
    def test_is_locked_for_one_job(self, bench):
        bench.prepare(slots=0)
        refusal("busy", bench.prepare, slots=0)

    def test_holds_what_was_pushed_to_the_nanosecond(self, bench):
        job, _ = bench.prepare()
        bench.sync(
            job,
            {"a b/ü\nx": b"content", "run.sh": b"#!/bin/sh\n"},
            entries=[entry("empty", kind="d", mode=0o755), entry("link", "nowhere/at all", kind="l")],
        )
        rows = bench.paths(job)
        assert rows["a b/ü\nx"][1:] == ["f", 0o644, 7, OLD, hash_bytes(b"content")]
        assert rows["empty"][1] == "d"
        assert rows["link"][5] == "nowhere/at all"

    def test_paths_need_not_be_utf_8(self, bench):
        name = os.fsdecode(b"\xff-name")
        job, _ = bench.prepare()
        bench.sync(job, {name: b"x"})
        assert name in bench.paths(job)

    def test_gets_a_new_generation_with_every_push(self, bench):
        job, _ = bench.prepare()
        assert bench.sync(job, {"a": b"1"}) != bench.sync(job, {"a": b"2"})

    def test_refuses_a_push_against_another_generation(self, bench):
        job, _ = bench.prepare()
        bench.sync(job, {"a": b"1"})
        refusal("stale", bench.sync, job, {"a": b"2"}, base="0123456789abcdef")
        assert bench.paths(job)["a"][5] == hash_bytes(b"1")

    def test_refuses_content_that_is_not_what_was_declared(self, bench):
        job, _ = bench.prepare()
        row = entry("a", b"good")
        refusal(
            "mismatch", bench.ask, "sync", b"evil", job=job, root=bench.key, base=bench.generation(job), changes=[row],
            deletes=[], bodies=[["a", 4]], exact=[],
        )  # fmt: skip

    @pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "", "a//b", "./a"])
    def test_ar_08_refuses_paths_that_leave_it(self, bench, path):
        job, _ = bench.prepare()
        refusal(
            "bad-request", bench.ask, "sync", b"x", job=job, root=bench.key, base=bench.generation(job),
            changes=[entry(path, b"x")], deletes=[], bodies=[[path, 1]], exact=[],
        )  # fmt: skip

    def test_sp_12_types_replace_one_another_and_deletions_go(self, bench):
        job, _ = bench.prepare()
        bench.sync(job, {"x": b"file", "d/f": b"1", "gone": b"1"})
        bench.sync(job, {"x/inner": b"2"}, deletes=["d/f", "gone"], entries=[entry("d", "x", kind="l")])
        rows = bench.paths(job)
        assert rows["x"][1] == "d"
        assert rows["d"][1] == "l"
        assert "gone" not in rows

    def test_takes_bulk_from_staging(self, bench, tmp_path):
        (tmp_path / "big").write_bytes(b"b" * 2_000_000)
        job, _ = bench.prepare()
        staging = f"{bench.executor.cache_dir}/roots/{bench.key}/staging"
        moved = bench.executor.send_files(str(tmp_path), ["big"], staging)
        assert (moved.files, moved.processes) == (1, 1)
        bench.ask(
            "sync", job=job, root=bench.key, base=bench.generation(job), changes=[entry("big", b"b" * 2_000_000)],
            deletes=[], bodies=[], staged=["big"], exact=[],
        )  # fmt: skip
        bench.executor.receive_files(
            f"{bench.executor.cache_dir}/roots/{bench.key}/tree", ["big"], str(tmp_path / "back"), largest=2_000_000
        )
        assert (tmp_path / "back" / "big").read_bytes() == b"b" * 2_000_000

    def test_moving_nothing_starts_nothing(self, bench, tmp_path):
        assert bench.executor.send_files(str(tmp_path), [], "/nowhere").processes == 0

    def test_goes_along_with_prepare_and_the_job_starts_in_the_same_trip(self, bench):
        job = bench.job()
        spec = bench.spec(job, "cat", "a")
        _, answer = bench.prepare(
            job, changes=[entry("a", b"1")], deletes=[], bodies=[["a", 1]], exact=[], body=b"1", spec=spec
        )
        assert answer["roots"][bench.key]["applied"] is True
        assert answer["started"] is True
        assert [p for s, _, p in log_frames(bench.read_all(job)[0]) if s == 1] == [b"1"]


class TestAJob:
    @pytest.mark.parametrize("code", [0, 1, 42, 101, 255])
    def test_tells_its_exit_code(self, bench, code):
        rc = bench.run("sh", "-c", f"exit {code}")[2]
        assert (rc["code"], rc["signal"], rc["reason"]) == (code, None, "exited")

    def test_ex_05_tells_the_signal_that_killed_it(self, bench):
        rc = bench.run("sh", "-c", "kill -KILL $$")[2]
        assert (rc["code"], rc["signal"]) == (None, 9)

    def test_says_that_a_command_is_not_there(self, bench):
        assert bench.run("no-such-program")[2]["code"] == 127

    def test_keeps_its_streams_apart(self, bench):
        out, err, _ = bench.run("sh", "-c", "echo out; echo err >&2")
        assert (out, err) == (b"out\n", b"err\n")

    def test_os_09_or_together_where_the_caller_has_one(self, bench):
        fds = {"0": "null", "1": "pipe", "2": "same"}
        out, err, _ = bench.run("sh", "-c", "echo out; echo err >&2; echo out", fds=fds)
        assert (out, err) == (b"out\nerr\nout\n", b"")

    def test_says_bytes(self, bench):
        assert bench.run("printf", r"\xff\x00\x80")[0] == b"\xff\x00\x80"

    def test_ic_02_gets_its_words_and_variables_as_they_are(self, bench):
        out, _, _ = bench.run("sh", "-c", 'printf \'%s|\' "$@" "$A"', "sh", "", "a b", "*", "é")
        assert out.decode() == "|a b|*|é|b c|"

    def test_reads_stdin_to_its_end(self, bench):
        job = bench.start("cat", fds={"0": "pipe", "1": "pipe", "2": "pipe"})
        assert bench.ask("stdin", b"first ", job=job, eof=False).fields["accepted"] == 6
        bench.ask("stdin", b"last", job=job, eof=True)
        assert b"".join(p for s, _, p in log_frames(bench.read_all(job)[0]) if s == 1) == b"first last"

    def test_stands_in_the_callers_directory(self, bench):
        assert bench.run("pwd")[0].decode() == ROOT + "\n"

    def test_ex_07_starts_once_however_often_it_is_asked(self, bench):
        job = bench.start("sh", "-c", "echo once; sleep 0.2")
        bench.ask("start", job=job, spec=bench.spec(job, "sh", "-c", "echo twice"))
        assert b"twice" not in bench.read_all(job)[0]

    def test_ends_at_its_time_limit(self, bench):
        rc = bench.run("sleep", "60", timeout_s=0.5)[2]
        assert rc["reason"] == "timeout"

    @pytest.mark.skipif(not can_limit_memory(), reason="no writable memory cgroup: the lab machine (root) runs it")
    def test_ex_05_over_its_memory_limit_is_oom(self, bench):
        job = bench.start("tail", "/dev/zero", memory_bytes=64 << 20)
        assert bench.read_all(job)[1]["reason"] == "oom"
        assert bench.ask("status", job=job).fields["state"] == "oom"

    def test_can_be_cancelled(self, bench):
        job = bench.start("sleep", "60")
        bench.ask("signal", job=job, signal="cancel")
        assert bench.read_all(job)[1]["reason"] == "killed"
        assert bench.ask("status", job=job).fields["state"] == "killed"

    def test_is_listed_while_it_is_there(self, bench):
        job = bench.start("sleep", "60")
        assert {j["id"]: j["state"] for j in bench.ask("jobs").fields["jobs"]}[job] == "running"

    def test_that_nobody_knows_is_no_such_job(self, bench):
        for op in ("read", "status", "signal"):
            refusal("no-such-job", bench.ask, op, job="j-unknown", offset=0, signal="cancel")

    def test_is_gone_when_it_was_collected(self, bench):
        job = bench.start("true")
        bench.read_all(job)
        bench.ask("release", job=job, collect=True)
        refusal("no-such-job", bench.ask, "status", job=job)


class TestTheLog:
    def test_os_03_goes_on_at_any_frame_boundary(self, bench):
        job = bench.start("sh", "-c", "echo one; echo two >&2; echo three")
        data, _ = bench.read_all(job)
        first = next(iter(log_frames(data)))
        offset = 16 + len(first[2])
        assert bench.read_all(job, offset)[0] == data[offset:]

    def test_can_be_read_again_after_the_end(self, bench):
        job = bench.start("echo", "x")
        assert bench.read_all(job) == bench.read_all(job)

    def test_outlives_the_connection(self, bench):
        job = bench.start("sh", "-c", "echo before; sleep 0.5; echo after")
        bench.executor.close()
        bench.executor.connect()
        data, rc = bench.read_all(job)
        assert b"".join(p for s, _, p in log_frames(data) if s == 1) == b"before\nafter\n"
        assert rc["code"] == 0

    def test_a_read_waits_for_output_and_not_longer(self, bench):
        job = bench.start("sh", "-c", "sleep 0.3; echo x; sleep 60")
        assert bench.ask("read", job=job, offset=0, max=65536, wait_s=20).body
        bench.ask("signal", job=job, signal="cancel")


class TestTheDelta:
    def after(self, bench, script, files=()):
        job, _ = bench.prepare()
        generation = bench.sync(job, files)
        bench.ask("start", job=job, spec=bench.spec(job, "sh", "-c", script))
        bench.read_all(job)
        return job, bench.delta(job, generation)

    def test_holds_what_the_job_made_with_its_content(self, bench):
        _, answer = self.after(bench, "echo product > out", {"in": b"1"})
        rows = {r[0]: r for r in answer.fields["entries"] if r[1] == "f"}
        assert set(rows) == {"out"}
        assert rows["out"][5] == hash_bytes(b"product\n")
        assert ["out", 8] in answer.fields["bodies"]
        assert b"product\n" in answer.body

    def test_ar_02_holds_changes_and_deletions(self, bench):
        _, answer = self.after(bench, "echo new > changed; rm gone", {"changed": b"old", "gone": b"x", "same": b"y"})
        assert {r[0] for r in answer.fields["entries"] if r[1] == "f"} == {"changed"}
        assert answer.fields["deletes"] == ["gone"]

    def test_ar_04_is_there_after_a_red_job_too(self, bench):
        _, answer = self.after(bench, "echo report > junit.xml; exit 1")
        assert "junit.xml" in {r[0] for r in answer.fields["entries"]}

    def test_is_empty_when_nothing_changed(self, bench):
        _, answer = self.after(bench, "true", {"a": b"1"})
        assert [r for r in answer.fields["entries"] if r[1] == "f"] == []
        assert answer.body == b""

    def test_ar_11_is_in_the_order_in_which_it_was_written(self, bench):
        _, answer = self.after(bench, "echo 1 > b; sleep 0.05; echo 2 > c; sleep 0.05; echo 3 > a")
        assert [r[0] for r in answer.fields["entries"] if r[1] == "f"] == ["b", "c", "a"]

    def test_is_the_whole_tree_for_one_who_knows_nothing(self, bench):
        job, _ = self.after(bench, "echo product > out", {"in": b"1"})
        answer = bench.delta(job, None)
        assert answer.fields["complete"] is True
        assert {r[0] for r in answer.fields["entries"] if r[1] == "f"} == {"in", "out"}

    def test_contents_beyond_the_limit_are_fetched(self, bench):
        job, _ = bench.prepare()
        generation = bench.sync(job)
        bench.ask("start", job=job, spec=bench.spec(job, "sh", "-c", "echo 123456789 > out"))
        bench.read_all(job)
        assert bench.delta(job, generation, inline=4).fields["bodies"] == []
        answer = bench.ask("get", job=job, root=bench.key, paths=["out"])
        assert (answer.fields["bodies"], answer.body) == ([["out", 10]], b"123456789\n")

    def test_nothing_outside_the_root_can_be_fetched(self, bench):
        job, _ = bench.prepare()
        with contextlib.suppress(WorkerFault):
            assert bench.ask("get", job=job, root=bench.key, paths=["../../lock"]).body == b""


class TestASharedCache:
    def test_says_what_is_missing_and_takes_it_once(self, bench, tmp_path):
        path = f"registry/cache/x-{os.getpid()}-{next(NUMBERS)}.crate"
        assert bench.ask("cache_missing", cache="cargo", paths=[path]).fields["missing"] == [path]
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(b"crate")
        staging = f"{bench.executor.cache_dir}/caches/cargo/staging-{next(NUMBERS)}"
        bench.executor.send_files(str(tmp_path), [path], staging)
        assert bench.ask("cache_adopt", cache="cargo", staging=staging, paths=[path]).fields["adopted"] == [path]
        assert bench.ask("cache_missing", cache="cargo", paths=[path]).fields["missing"] == []


class TestTheMocksFaults:
    """Only the mock can be told to misbehave; what it does then is what a network does."""

    def make(self, **plan):
        return MockExecutor(Worker(Declared("mock", "mock")), MockWorker(slots=2), FaultPlan(**plan))

    def test_fails_the_operation_of_the_plan_and_no_other(self):
        executor = self.make(fail=frozenset({3}))
        executor.connect()
        executor.request("ping")
        with pytest.raises(Unreachable):
            executor.request("ping")
        executor.connect()
        executor.request("ping")

    def test_a_lost_answer_was_carried_out(self):
        executor = self.make(lose_answer=frozenset({2}))
        bench = Bench(executor)
        with pytest.raises(Unreachable):
            bench.prepare("j-1", slots=2, root=False)
        executor.connect()
        assert executor.mock.answer("health", {}, b"")[0]["slots_used"] == 0

    def test_the_same_seed_gives_the_same_faults(self):
        def pattern(seed):
            executor = self.make(rate=0.3, seed=seed)
            found = []
            for _ in range(40):
                try:
                    executor.connect()
                    executor.request("ping")
                    found.append(True)
                except Unreachable:
                    found.append(False)
            return found

        assert pattern(1) == pattern(1)
        assert pattern(1) != pattern(2)

    def test_an_offset_clock_is_told(self):
        executor = self.make(offset_ns=5 * 10**9)
        executor.connect()
        assert abs(executor.clock_offset_ns() - 5 * 10**9) < 10**8
