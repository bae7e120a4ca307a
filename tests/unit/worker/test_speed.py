"""The speed score: its formulas, the record that keeps it, and the job that has the right of way."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from rch.testing.worker_process import WorkerRefused
from rch.testing.worker_root import new_job
from rch.worker import _rates, bench, speed
from rch.worker.cache import Cache
from rch.worker.facts import machine

RATES = {"cpu_mb_s": 12.5, "memory_mb_s": 4000.0, "disk_mb_s": 500.0}
MACHINE = {"cpu_model": "Model T", "cores": 4, "memory_mib": 2048, "compiler": ""}


@pytest.fixture
def cache(tmp_path):
    cache = Cache(str(tmp_path / "cache"))
    cache.create()
    return cache


class TestTheFormula:
    def test_weighs_a_real_compile_most(self):
        found = speed.score({**RATES, "compile_s": 0.4})
        assert found["method"] == "compile"
        assert found["speed_score"] == 0.6 * 50 + 0.25 * 50 + 0.1 * 40 + 0.05 * 50
        assert (found["cpu_score"], found["memory_score"], found["disk_io_score"]) == (50.0, 40.0, 50.0)

    def test_d_7_takes_sysbench_where_there_is_no_compiler(self):
        found = speed.score({**RATES, "sysbench": {"events_per_s": 2000.0, "memory_mib_s": 10_000.0}})
        assert found["method"] == "sysbench"
        assert found["speed_score"] == 0.7 * 20 + 0.3 * 20

    def test_d_7_caps_each_part_at_100(self):
        found = speed.score({**RATES, "sysbench": {"events_per_s": 90_000.0, "memory_mib_s": 25_000.0}})
        assert found["speed_score"] == 0.7 * 100 + 0.3 * 50

    def test_d_7_keeps_the_weights_with_our_own_rates(self):
        found = speed.score(RATES)
        assert (found["method"], found["speed_score"]) == ("rates", 0.7 * 50 + 0.3 * 40)

    def test_names_every_method_in_words(self):
        assert set(speed.METHODS) == {"compile", "sysbench", "rates", "cloud_benchmarker"}
        for name, weight in speed.WEIGHTS.items():
            assert f"{weight:g} {name.split('_', maxsplit=1)[0]}" in speed.METHODS["compile"]
        assert sum(speed.WEIGHTS.values()) == pytest.approx(1)


class TestTheQuota:
    @pytest.mark.parametrize(
        ("files", "cpus"),
        [
            ({"cpu.max": "50000 100000"}, 0.5),
            ({"cpu.max": "max 100000"}, float("inf")),
            ({"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}, 1.5),
            ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, float("inf")),
            ({"cpu.max": "nonsense"}, float("inf")),
            ({}, float("inf")),
        ],
    )
    def test_is_what_the_control_group_says(self, tmp_path, files, cpus):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text + "\n")
        assert _rates.quota(str(tmp_path)) == cpus

    def test_makes_half_a_cpu_half_the_rate(self, tmp_path, monkeypatch):
        monkeypatch.setattr(_rates, "quota", lambda: 1.0)
        whole = _rates.measure(str(tmp_path))
        monkeypatch.setattr(_rates, "quota", lambda: 0.5)
        half = _rates.measure(str(tmp_path))
        assert half["cpu_mb_s"] < 0.75 * whole["cpu_mb_s"]
        assert half["compile_s"] > 1.4 * whole["compile_s"]


class TestTheRecord:
    def test_is_read_back(self, cache):
        assert speed.kept(cache, MACHINE) is None
        speed.keep(cache, MACHINE, speed.score(RATES))
        record = speed.kept(cache, MACHINE)
        assert record["speed_score"] == 47.0
        assert speed.age_s(record) < 60

    @pytest.mark.parametrize("changed", [{"cores": 8}, {"cpu_model": "Model A"}, {"compiler": "/usr/bin/gcc-13"}])
    def test_d_8_is_void_on_another_machine(self, cache, changed):
        speed.keep(cache, MACHINE, speed.score(RATES))
        assert speed.kept(cache, {**MACHINE, **changed}) is None

    def test_d_8_is_told_by_all_that_makes_a_machine_another_one(self):
        now = machine()
        assert set(now) == set(MACHINE)
        assert now["compiler"] == os.path.realpath(shutil.which("cc", path="/usr/local/bin:/usr/bin:/bin"))

    def test_stays_as_it_is_while_new_measurements_confirm_it(self, cache):
        speed.keep(cache, MACHINE, {"speed_score": 50.0, "method": "compile"})
        assert speed.keep(cache, MACHINE, {"speed_score": 54.9, "method": "compile"})["speed_score"] == 50.0
        assert speed.keep(cache, MACHINE, {"speed_score": 45.1, "method": "compile"})["speed_score"] == 50.0
        assert speed.keep(cache, MACHINE, {"speed_score": 55.1, "method": "compile"})["speed_score"] == 55.1
        assert speed.keep(cache, MACHINE, {"speed_score": 55.0, "method": "rates"})["method"] == "rates"

    def test_from_the_future_counts_as_very_old(self):
        assert speed.age_s({"measured_at": int(time.time()) + 1000}) == float("inf")
        assert speed.age_s({}) == float("inf")

    def test_that_somebody_brought_is_not_measured_over_by_age(self):
        assert speed.holds({"method": "cloud_benchmarker", "measured_at": 1}, 60)
        assert not speed.holds({"method": "compile", "measured_at": 1}, 60)

    def test_that_holds_nonsense_counts_as_none(self, cache):
        speed.keep(cache, MACHINE, {"speed_score": 50.0, "method": "compile"})
        path = os.path.join(cache.path, "facts.d", "speed.json")
        with open(path, encoding="ascii") as file:
            record = json.load(file)
        for wrong in ("fast", 101, -1, None):
            with open(path, "w", encoding="ascii") as file:
                json.dump({**record, "speed_score": wrong}, file)
            assert speed.kept(cache, MACHINE) is None


class TestAMeasurement:
    def test_is_a_fact_until_it_is_too_old(self, worker):
        first = worker.request("bench", {"keep": True}, timeout_s=100).fields
        assert first["measured"] is True
        assert 0 < first["speed_score"] <= 100
        facts = worker.request("facts", timeout_s=60).fields["facts"]
        assert (facts["speed_score"], facts["speed"]["method"]) == (first["speed_score"], first["method"])
        again = worker.request("bench", {"keep": True, "max_age_s": 3600}).fields
        assert again["measured"] is False
        assert again["speed_score"] == first["speed_score"]

    def test_that_nobody_asked_to_keep_is_no_fact_and_leaves_no_file(self, worker):
        worker.request("bench", timeout_s=100)
        assert worker.request("facts", timeout_s=60).fields["facts"]["speed_score"] is None
        assert [name for name in os.listdir(worker.cache_dir) if name.startswith("bench-")] == []

    def test_d_8_is_ended_by_a_job_that_arrives(self, worker):
        measuring = worker.submit("bench", {"keep": True})
        until = time.monotonic() + 30
        while not any(name.startswith("bench-") for name in os.listdir(worker.cache_dir)):
            assert time.monotonic() < until
            time.sleep(0.01)
        assert worker.run(new_job(), ["sleep", "1"]).rc["code"] == 0
        answer = measuring.result(30).fields
        assert (answer["ok"], answer["error"]) == (False, "busy")
        assert "a job came" in answer["message"]
        assert worker.request("facts", timeout_s=60).fields["facts"]["speed_score"] is None

    def test_of_a_busy_machine_does_not_begin(self, worker):
        job = new_job()
        worker.start(job, ["sleep", "3"])
        with pytest.raises(WorkerRefused, match="a job is running"):
            worker.request("bench")
        worker.follow(job)

    def test_goes_on_without_a_compiler(self, tmp_path, monkeypatch):
        monkeypatch.setattr(_rates, "_COMPILERS", ("no-such-compiler",))
        found = _rates.measure(str(tmp_path))
        assert "compile_s" not in found
        assert found["cpu_mb_s"] > 0
        assert os.listdir(tmp_path) == []


def test_a_score_that_is_none_is_a_mistake_on_the_command_line(tmp_path):
    program = "import sys; from rch.worker.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "bench", "--cache", str(tmp_path / "c"), "--given", "120"],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2


class TestAChange:
    """A score that departs from the record has to show twice; the one nearer to the record is what was found."""

    @pytest.mark.parametrize(
        ("measured", "kept", "times"),
        [
            ([52.0], 50.0, 1),  # confirmed at once
            ([42.0, 47.0], 50.0, 2),  # a neighbour's minute
            ([58.0, 51.0], 50.0, 2),  # a rested processor's
            ([40.0, 41.0], 41.0, 2),  # slower indeed
            ([70.0, 69.0], 69.0, 2),  # faster indeed
        ],
    )
    def test_has_to_show_twice(self, cache, monkeypatch, measured, kept, times):
        speed.keep(cache, MACHINE, {"speed_score": 50.0, "method": "compile"})
        scores = iter(measured)
        asked = []

        def measure(*_):
            asked.append(next(scores))
            return {"speed_score": asked[-1], "method": "compile", "rates": {}}

        monkeypatch.setattr(bench, "_measured", measure)
        assert bench.bench(cache, None, MACHINE, keep=True)["speed_score"] == kept
        assert len(asked) == times
        assert speed.kept(cache, MACHINE)["speed_score"] == kept

    def test_needs_no_second_look_where_the_score_is_of_another_kind(self, cache, monkeypatch):
        speed.keep(cache, MACHINE, {"speed_score": 90.0, "method": "cloud_benchmarker"})
        asked = []
        found = {"speed_score": 50.0, "method": "compile", "rates": {}}
        monkeypatch.setattr(bench, "_measured", lambda *_: asked.append(1) or dict(found))
        assert bench.bench(cache, None, MACHINE, keep=True)["speed_score"] == 50.0
        assert len(asked) == 1
