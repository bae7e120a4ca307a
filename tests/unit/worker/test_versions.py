"""Versions of rch-wkr that nobody needs any more are collected; the current one, the way back and what runs stay."""

import os
import subprocess
import sys
import time

import pytest

from rch.worker.cache import Cache
from rch.worker.collect import collect

NAMES = ("a" * 16, "b" * 16, "c" * 16, "d" * 16)
"""From the oldest to the youngest."""


@pytest.fixture
def cache(tmp_path):
    cache = Cache(str(tmp_path / "cache"))
    cache.create()
    os.mkdir(os.path.join(cache.path, "bin"))
    for number, name in enumerate(NAMES):
        place = os.path.join(cache.path, "versions", name)
        os.makedirs(place)
        with open(os.path.join(place, "rch-wkr"), "wb") as file:
            file.write(b"import time; print('up', flush=True); time.sleep(60)\n")
        at = time.time() - (10 - number) * 86400
        os.utime(place, (at, at))
    os.symlink(f"../versions/{NAMES[1]}/rch-wkr", os.path.join(cache.path, "bin", "rch-wkr"))
    return cache


def removed(cache, **more):
    found = collect(cache, **{"max_age_s": 86400.0, "keep": 5, "dry_run": False, **more})["removed"]
    return [name.removeprefix("versions/") for name in found if name.startswith("versions/")]


class TestVersions:
    def test_that_are_old_go_but_the_current_one_and_the_youngest_other(self, cache):
        assert removed(cache, dry_run=True) == [NAMES[0], NAMES[2]]
        assert removed(cache) == [NAMES[0], NAMES[2]]
        assert sorted(os.listdir(os.path.join(cache.path, "versions"))) == [NAMES[1], NAMES[3]]
        assert os.listdir(cache.trash) == []

    def test_that_were_deployed_lately_stay(self, cache):
        assert removed(cache, max_age_s=9.5 * 86400) == [NAMES[0]]

    def test_that_a_supervisor_runs_from_stay(self, cache):
        words = [sys.executable, os.path.join(cache.path, "versions", NAMES[0], "rch-wkr")]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as running:
            try:
                running.stdout.readline()  # until exec has ended /proc shows no words of it
                assert removed(cache) == [NAMES[2]]
            finally:
                running.kill()

    def test_all_stay_where_none_is_the_current_one(self, cache):
        os.unlink(os.path.join(cache.path, "bin", "rch-wkr"))
        assert removed(cache) == []
