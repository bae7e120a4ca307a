"""The score is measured by a real compile, is a fact, and gives way to whoever holds a slot."""

import json

import pytest

CACHE = "/home/rch/.rch"
BENCH = f"runuser -u rch -- python3 {CACHE}/bin/rch-wkr bench --cache {CACHE}"


@pytest.fixture
def fact(host):
    return json.loads(host.file("/etc/ansible/facts.d/rch.fact").content_string)


def test_is_a_fact_with_the_method_by_which_it_was_found(fact):
    assert 0 < fact["speed_score"] <= 100
    assert fact["speed"]["method"] == "compile"


def test_is_kept_in_the_cache_of_the_account_alone(host, fact):
    kept = host.file(f"{CACHE}/facts.d/speed.json")
    assert (kept.user, kept.mode & 0o077) == ("rch", 0)
    assert json.loads(kept.content_string)["speed_score"] == fact["speed_score"]


def test_a_measurement_leaves_nothing_behind_and_says_every_rate(host):
    before = host.check_output(f"ls -A {CACHE} /tmp")
    said = json.loads(host.check_output(BENCH))
    assert 0 < said["speed_score"] <= 100
    rates = [rate for rate in said["rates"].values() if not isinstance(rate, str)]  # one says which compiler it was
    assert len(rates) > 2
    assert all(rate > 0 for rate in rates)
    assert host.check_output(f"ls -A {CACHE} /tmp") == before


def test_a_job_has_the_right_of_way(host):
    done = host.run(f"runuser -u rch -- flock {CACHE}/slots/0 python3 {CACHE}/bin/rch-wkr bench --cache {CACHE}")
    assert done.rc != 0
    assert "not measured" in done.stderr
    assert "a job is running" in done.stderr
