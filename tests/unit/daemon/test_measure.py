"""Idle workers are measured, one at a time, and never twice what still holds. Real rch-wkr processes."""

import json
import os
import threading
import time

import pytest

from rch.daemon.measure import Measurer
from rch.daemon.pool import Pool
from rch.daemon.store import Job, Store
from rch.execute.channel import Answer
from rch.execute.local import LocalExecutor
from rch.fleet import compile_registry
from rch.fleet.record import read_observed, write_record
from rch.worker import speed
from rch.worker.cache import Cache, write_json
from rch.worker.facts import machine

HOUR = 3600.0


class Watched(LocalExecutor):
    """A worker here; ``begun`` counts its benches, ``asked`` has what came of each.

    together: how many ran at once at most, over all workers.
    """

    lock = threading.Lock()
    now = 0
    together = 0

    def __init__(self, worker, **more):
        super().__init__(worker, **more)
        self.asked = []
        self.begun = 0

    def request(self, op, fields=None, body=b"", *, timeout_s=30.0) -> Answer:
        if op != "bench":
            return super().request(op, fields, body, timeout_s=timeout_s)
        self.begun += 1
        with Watched.lock:
            Watched.now += 1
            Watched.together = max(Watched.together, Watched.now)
        try:
            answer = super().request(op, fields, body, timeout_s=timeout_s)
            self.asked.append(dict(answer.fields))
            return answer
        finally:
            with Watched.lock:
                Watched.now -= 1


@pytest.fixture
def start(tmp_path):
    """A function: names of workers -> their executors, with an rchd's pool, store and measurer over them."""
    state, inventory = tmp_path / "state", tmp_path / "hosts.yml"
    (state / "facts").mkdir(parents=True)
    running = []

    def make(*names, **more):
        hosts = {name: {"ansible_connection": "local"} for name in names}
        inventory.write_text(json.dumps({"all": {"children": {"rch_workers": {"hosts": hosts}}}}))
        compile_registry(str(state), str(inventory))
        executors = {}

        def executor(worker):
            made = Watched(worker, directory=str(tmp_path / worker.name), client="t")
            executors[worker.name] = made
            return made

        store = Store(str(state / "rch.db"))
        pool = Pool(str(state), str(tmp_path), "t", inventory=str(inventory), make_executor=executor)
        measurer = Measurer(str(state), store, pool, **{"interval_s": 6 * HOUR, "look_s": 0.05, "quiet_s": 0.1, **more})
        pool.start()
        measurer.start()
        running.extend((measurer.stop, pool.stop, store.close))
        return executors, store, running

    yield make
    for stop in running:
        stop()


@pytest.fixture
def scored(tmp_path):
    """A function: gives a worker a score that was measured so many seconds ago."""

    def give(name, ago_s):
        cache = Cache(str(tmp_path / name))
        cache.create()
        record = speed.keep(cache, machine(), {"speed_score": 50.0, "method": "compile"})
        write_json(
            os.path.join(cache.path, "facts.d", "speed.json"), {**record, "measured_at": int(time.time() - ago_s)}
        )

    return give


def wait_for(condition, limit_s=60.0):
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


class TestIdleWorkers:
    def test_d_8_are_measured_one_at_a_time_and_a_restart_measures_nothing_that_holds(self, start, tmp_path):
        Watched.together = 0
        executors, _, running = start("one", "two")
        wait_for(lambda: all(executor.asked for executor in executors.values()))
        assert Watched.together == 1
        assert all(executor.asked[0]["measured"] for executor in executors.values())
        facts = read_observed(str(tmp_path / "state"), "one").facts
        assert facts["speed_score"] == executors["one"].asked[0]["speed_score"]
        assert facts["speed"]["method"] in ("compile", "sysbench", "rates")

        while running:
            running.pop(0)()
        again, _, _ = start("one", "two")
        wait_for(lambda: all(executor.asked for executor in again.values()))
        assert not any(executor.asked[0]["measured"] for executor in again.values())
        assert len(again["one"].asked) == 1

    def test_keep_the_facts_that_a_probe_wrote_meanwhile(self, start, scored, tmp_path):
        scored("one", 60)
        start("one", quiet_s=1.0)
        state = str(tmp_path / "state")
        write_record(state, "one", json.dumps({"hostname": "as probed"}).encode())
        wait_for(lambda: "speed_score" in read_observed(state, "one").facts)
        assert read_observed(state, "one").facts["hostname"] == "as probed"

    def test_d_8_are_measured_again_when_the_score_is_older_than_the_interval(self, start, scored):
        scored("old", 7 * HOUR)
        scored("young", 5 * HOUR)
        executors, _, _ = start("old", "young")
        wait_for(lambda: executors["old"].asked and executors["young"].asked)
        assert executors["old"].asked[0]["measured"]
        assert not executors["young"].asked[0]["measured"]


class TestNobodyIsMeasured:
    def test_while_it_has_a_job_or_is_drained(self, start, scored):
        scored("idle", HOUR)
        executors, store, _ = start("busy", "drained", "idle", quiet_s=1.0)
        store.put_job(Job(id="j-1", key="k", command=["make"], cwd="/", kind="make", state="running", worker="busy"))
        store.set_switch("drained", "drain")
        wait_for(lambda: executors["idle"].asked and all(executor.connected for executor in executors.values()))
        time.sleep(2.0)  # past the time of quiet that would do
        assert (executors["busy"].begun, executors["drained"].begun) == (0, 0)

    def test_d_8_where_the_interval_is_0(self, start):
        executors, _, _ = start("one", interval_s=0.0)
        time.sleep(1.0)
        assert executors["one"].asked == []
