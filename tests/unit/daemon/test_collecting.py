"""What goes when: the keys that say how long things are kept reach the worker, and this machine's own records go too."""

import os
import time

import pytest
from station import Station

from rch.daemon.collecting import DAY_S, Collector
from rch.execute.mock import FaultPlan


@pytest.fixture
def here(tmp_path, monkeypatch):
    made = Station(tmp_path, FaultPlan())
    monkeypatch.setattr("os.environ", made.env)
    made.collector = Collector(made.places, made.store, made.pool)
    made.run("true")  # connects
    yield made
    made.close()


class TestTheCollector:
    def test_c_16_asks_each_connected_worker_with_the_ages_of_the_configuration(self, here):
        here.collector.collect()
        assert here.asked("gc") == [{"max_age_s": 86400.0, "job_age_s": 86400.0, "keep": 5}]
        here.configure("[retention]\nfailed_hours = 2\nkeep_projects = 9\n[artifacts]\ncache_ttl_hours = 1\n")
        here.collector.collect()
        assert here.asked("gc")[1] == {"max_age_s": 3600.0, "job_age_s": 7200.0, "keep": 9}

    def test_leaves_a_worker_alone_that_is_out_of_reach(self, here):
        here.pool.member("mock").state = "unreachable"
        here.collector.collect()
        assert here.asked("gc") == []

    def test_goes_on_where_one_worker_fails(self, here):
        here.executor.plan.answers["gc"] = lambda *_: ({"ok": False, "error": "internal", "message": "broken"}, b"")
        old = here.job()
        old.id, old.times["created"] = "j-old", time.time() - 31 * DAY_S
        here.store.put_job(old)
        here.collector.collect()
        assert here.store.job("j-old") is None

    def test_c_16_history_and_logs_go_after_their_days_and_not_before(self, here):
        young, old = here.job(), here.job()
        old.id, old.times["created"] = "j-old", time.time() - 31 * DAY_S
        here.store.put_job(old)
        place = os.path.join(here.places.state, "jobs", "j-old")
        os.makedirs(place)
        os.utime(place, (old.times["created"], old.times["created"]))
        here.configure("[metrics]\nhistory_retention_days = 40\n")
        here.collector.collect()
        assert here.store.job("j-old") is not None
        here.configure("")
        here.collector.collect()
        assert here.store.job("j-old") is None
        assert not os.path.exists(place)
        assert here.store.job(young.id) is not None
        assert os.path.isdir(os.path.join(here.places.state, "jobs", young.id))

    def test_a_broken_configuration_collects_nothing(self, here):
        here.configure("nonsense")
        here.collector.collect()
        assert here.asked("gc") == []
