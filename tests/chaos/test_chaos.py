"""The whole pipeline over a worker that misbehaves by seed: whatever breaks, the caller hears the truth.

No process, no network: rchd's desk, the real project and transfer sides, the mock worker with a fault plan, and a
caller made of two queues. 40 seeds in ``./dev test``, 200 more with ``--all``.
"""

import contextlib
import json
import os
import queue
import random
import threading

import pytest

from rch.client_frames import log_frames
from rch.config.places import places
from rch.daemon import places as rooms
from rch.daemon.desk import Desk
from rch.daemon.pool import Pool
from rch.daemon.store import FINAL, Store
from rch.daemon.wire import Frame
from rch.execute.mock import FaultPlan, MockExecutor, MockWorker
from rch.fleet.model import Declared, Observed, Registry, Worker
from rch.transfer import roll_forward

SEEDS = [pytest.param(s, marks=[pytest.mark.heavy] if s >= 40 else []) for s in range(240)]


class Caller:
    """The client's end of a connection, as far as the pipeline needs one: it proves roots and keeps what it hears."""

    def __init__(self):
        self.up = queue.Queue()
        self.frames = []
        self.done = threading.Event()

    def send(self, frame, payload=b""):
        self.frames.append((frame, payload))
        if frame is Frame.PROVE:
            fields = json.loads(payload)
            path = os.path.join(fields["root"], fields["nonce"])
            with open(path, "x", encoding="ascii"):
                pass
            here = os.stat(fields["root"])
            self.nonce = path
            answer = {"root": fields["root"], "dev": here.st_dev, "ino": here.st_ino}
            self.up.put((Frame.PROOF, json.dumps(answer).encode()))
        elif frame is Frame.PROVED:
            os.unlink(self.nonce)
        elif frame is Frame.LOCAL:
            self.up.put((Frame.LOCAL_DONE, b'{"status": 0}'))

    def receive(self):
        return self.up.get()

    def close(self):
        self.up.put(None)

    def last(self, *kinds):
        return next((f, json.loads(p)) for f, p in reversed(self.frames) if f in kinds)

    @property
    def output(self):
        data = b"".join(p[8:] for f, p in self.frames if f is Frame.LOG)
        return b"".join(payload for stream, payload in log_frames(data) if stream == 1)


class Station:
    """A desk with one mock worker, and a project of a few files."""

    def __init__(self, tmp, plan):
        self.env = {"HOME": str(tmp), "PATH": "/usr/bin:/bin", "RCH_STATE_DIR": str(tmp / "s")}
        self.places = places(self.env)
        rooms.make_directories(self.places)
        self.store = Store(os.path.join(self.places.state, "db"))
        self.mock = MockWorker(slots=2)
        worker = Worker(Declared("mock", "mock", executor="mock", slots=2), Observed({"os": {"id": "mock"}}))
        self.executor = MockExecutor(worker, self.mock, plan)
        self.pool = Pool(self.places.state, self.places.run, "c", make_executor=lambda _: self.executor)
        self.pool._adopt(Registry({"mock": worker}, "d"))  # the watch thread is not started: no operation but ours
        self.desk = Desk(self.places, self.store, self.pool)
        self.desk._adopted.set()  # orders wait until the jobs of an earlier rchd are known; there was none
        self.project = tmp / "project"
        self.project.mkdir()
        (self.project / "Makefile").write_text("all:\n")
        (self.project / "in").write_text("first")

    def run(self, script):
        """(status or None for a run here, caller) of a free command on the pinned worker."""
        caller = Caller()
        request = {
            "argv": ["sh", "-c", script], "cwd": str(self.project), "env": self.env, "umask": 0o22, "rows": 24,
            "cols": 80, "fds": {"0": "null", "1": "pipe", "2": "pipe", "same": False}, "uid": os.getuid(),
            "gid": os.getgid(), "pid": 1, "options": {"worker": "mock"},
        }  # fmt: skip
        self.pool.member("mock").retry_at = 0.0  # a new command later: the next probe would be due
        self.desk.serve(caller, request, spooled=False)
        frame, fields = caller.last(Frame.EXIT, Frame.ERROR, Frame.LOCAL)
        return (None if frame is Frame.LOCAL else fields["status"]), caller

    def close(self):
        self.desk.stop()
        self.executor.close()
        self.store.close()


@pytest.fixture
def station(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)  # back-off without waiting
    made = []

    def make(**plan):
        made.append(Station(tmp_path, FaultPlan(**plan)))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_breaks_the_caller_hears_the_truth(station, seed):
    here = station(seed=seed, rate=0.0)
    out = here.project / "out"
    assert here.run("cat in > out")[0] == 0
    dice = random.Random(seed)
    for round_ in range(4):
        before = out.read_text()
        (here.project / "in").write_text(f"{seed}-{round_}")
        here.executor.plan.rate = dice.choice([0.0, 0.1, 0.3, 0.6])
        script = dice.choice(
            ["cat in > out; echo said", "cat in > out; echo said; exit 3", "rm out; cat in > out; echo said"]
        )
        status, caller = here.run(script)
        here.executor.plan.rate = 0.0
        assert status in (0, 3, 102, 103), caller.frames[-3:]
        assert (here.project / "in").read_text() == f"{seed}-{round_}"
        now = out.read_text() if out.exists() else None
        if status in (0, 3):
            fields = caller.last(Frame.EXIT)[1]
            assert caller.output == b"said\n"
            if fields["products"] == "verified":
                assert now == f"{seed}-{round_}"
        assert now in (before, f"{seed}-{round_}"), "a product is the old one or the new one, never something between"
        assert not [n for n in os.listdir(here.project) if n.startswith(".rch-")]
        for done in roll_forward(here.places.state):
            assert done.complete
    status, _ = here.run("cat in > out")
    assert status == 0
    assert out.read_text() == (here.project / "in").read_text()
    assert here.mock.answer("health", {}, b"")[0]["slots_used"] == 0
    assert {j.state for j in here.store.jobs()} <= FINAL | {"running"}


def test_the_same_seed_tells_the_same_story(station):
    stories = []
    here = station(seed=7, rate=0.2)
    for _ in range(2):
        here.executor._random = random.Random(7)
        stories.append([here.run("cat in > out")[0] for _ in range(3)])
    assert len(stories) == 2
    assert all(s in (0, 102, 103) for story in stories for s in story)


@pytest.mark.parametrize("number", range(1, 14))
def test_one_lost_connection_at_any_operation_loses_nothing(station, number):
    here = station()
    here.run("cat in > out")
    (here.project / "in").write_text("second")
    here.executor.plan.fail = frozenset({len(here.executor.calls) + number})
    status, _ = here.run("cat in > out")
    assert status in (0, 102, 103)
    if status == 0:
        assert (here.project / "out").read_text() == "second"
    with contextlib.suppress(StopIteration):
        here.executor.plan.fail = frozenset()
    assert here.run("cat in > out")[0] == 0
    assert (here.project / "out").read_text() == "second"


@pytest.mark.parametrize("number", range(1, 14))
def test_ex_07_a_lost_answer_never_runs_the_command_twice(station, number):
    here = station()
    here.run("echo x >> log")
    here.executor.plan.lose_answer = frozenset({len(here.executor.calls) + number})
    status, caller = here.run("echo x >> log; echo ran")
    assert caller.output.count(b"ran") <= 1
    if status == 0:
        assert (here.project / "log").read_text() == "x\nx\n"
