"""Seconds to wait for a worker whose clock is behind."""

import pytest

from rch.transfer.lag import LIMIT_S, lag_s
from rch.transfer.model import PushPlan
from rch.transfer.snapshot import TICK_NS
from rch.worker.protocol import Entry

NOW = 1_700_000_000_000_000_000
MS = 1_000_000


def plan(*ages_ms, metadata=()):
    def entries(ages):
        return tuple(Entry(f"f{age}", "f", 0o644, 1, NOW - age * MS, "h") for age in ages)

    return PushPlan(
        root_key="k", base="", changes=entries(ages_ms), contents=(), metadata=entries(metadata), deletes=(), exact=()
    )


class TestTheWait:
    @pytest.mark.parametrize(
        ("offset_ms", "ages_ms", "waited_ms"),
        [
            (0, (1000,), 0),  # in step
            (500, (0,), 0),  # ahead: the return waits instead
            (-500, (100,), 400),  # edited 100 ms ago, its clock shows 500 ms ago
            (-500, (800,), 0),  # edited before what its clock shows
            (-500, (100, 300, 90_000), 400),  # the newest counts
            (-500, (-60_000,), 0),  # dated tomorrow by somebody
            (-500, (), 0),  # nothing is sent
        ],
    )
    def test_is_until_its_clock_has_passed_the_newest_source(self, offset_ms, ages_ms, waited_ms):
        expected = (waited_ms * MS + TICK_NS) / 1e9 if waited_ms else 0
        assert lag_s([plan(*ages_ms)], offset_ms * MS, NOW) == pytest.approx(expected)

    def test_counts_times_that_changed_alone(self):
        assert lag_s([plan(), plan(metadata=(0,))], -200 * MS, NOW) == pytest.approx(0.2 + TICK_NS / 1e9)

    def test_has_a_limit(self):
        assert lag_s([plan(0)], -3_600_000 * MS, NOW) == LIMIT_S
