"""What a large tree costs between commands: no collector looks through it, no edit rewrites its cache."""

import gc
import os
import weakref

import pytest

from rch.project import StatCache, collect_all
from rch.project._memory import uncollected


class Cycle:
    def __init__(self):
        self.itself = self


@pytest.fixture(autouse=True)
def _thaw():
    yield
    gc.unfreeze()


def test_what_a_block_built_is_set_aside_and_the_collector_is_on_again():
    before = gc.get_freeze_count()
    with uncollected():
        assert not gc.isenabled()
        rows = [[number] for number in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() - before >= len(rows)


def test_a_cycle_that_was_set_aside_goes_with_the_next_whole_look():
    with uncollected():
        gone = weakref.ref(Cycle())
    gc.collect()
    assert gone() is not None
    collect_all()
    assert gone() is None


class TestTheStatCache:
    @pytest.fixture
    def status(self, tmp_path):
        path = tmp_path / "file"
        path.write_text("x")
        os.utime(path, ns=(1, 1))
        return path.stat()

    @pytest.fixture
    def cache(self, tmp_path, status):
        made = StatCache(str(tmp_path / "stat"))
        for number in range(2000):
            made.record(f"f{number}", status, "0" * 64, status.st_ctime_ns + 10**10)
        made.save()
        return made

    def test_is_not_written_for_one_edit_among_many_files(self, tmp_path, cache, status):
        cache.record("f1", status, "1" * 64, status.st_ctime_ns + 10**10)
        cache.save()
        assert StatCache(str(tmp_path / "stat")).rows["f1"][4] == "0" * 64

    def test_is_written_when_reading_again_would_cost_more(self, tmp_path, cache, status):
        for number in range(100):
            cache.record(f"f{number}", status, "1" * 64, status.st_ctime_ns + 10**10)
        cache.save()
        assert StatCache(str(tmp_path / "stat")).rows["f1"][4] == "1" * 64

    def test_that_was_given_up_is_written_whatever_it_holds(self, tmp_path, cache):
        cache.forget_all()
        cache.save()
        assert StatCache(str(tmp_path / "stat")).rows == {}
