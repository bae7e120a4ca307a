"""The whole pipeline over a worker that misbehaves by seed: whatever breaks, the caller hears the truth.

No process, no network: rchd's desk, the real project and transfer sides, the mock worker with a fault plan, and a
caller made of two queues. 40 seeds in ``./dev test``, 200 more with ``--all``.
"""

import contextlib
import os
import random

import pytest
from station import Station

from rch.daemon.store import FINAL
from rch.daemon.wire import Frame
from rch.execute.mock import FaultPlan
from rch.transfer import roll_forward

SEEDS = [pytest.param(s, marks=[pytest.mark.heavy] if s >= 40 else []) for s in range(240)]


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
