"""What bulk transfers tell of the link, and what the link decides."""

import pytest

from rch.execute.executor import Moved
from rch.execute.link import REMEMBERED, LinkRate


def moved(megabytes, seconds):
    return Moved(1, int(megabytes * 1e6), seconds, 1)


class TestTheRateOfALink:
    def test_a_18_is_unknown_until_a_transfer_has_lasted_long_enough_to_show_it(self):
        link = LinkRate()
        link.note(moved(10, 0.4))
        link.note(moved(0, 3.0))
        assert link.mbit_s is None
        link.note(moved(25, 2.0))
        assert link.mbit_s == pytest.approx(100)

    def test_is_the_best_of_the_last_transfers(self):
        link = LinkRate()
        for seconds in (2.0, 4.0, 1.0):
            link.note(moved(25, seconds))
        assert link.mbit_s == pytest.approx(200)
        for _ in range(REMEMBERED):
            link.note(moved(2.5, 2.0))
        assert link.mbit_s == pytest.approx(10)

    def test_hands_the_transfer_on(self):
        one = moved(1, 1)
        assert LinkRate().note(one) is one
