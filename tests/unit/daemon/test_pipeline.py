"""The pipeline between decision and return, over a worker in memory: what each switch and key makes of a command."""

import errno
import os
from dataclasses import replace

import pytest
from station import Leaver, Station

from rch.daemon.wire import Frame
from rch.errors import ProductsUnverified
from rch.execute.mock import FaultPlan
from rch.fleet.toolchains import equipment
from rch.project import build_project
from rch.transfer import BuildDir, return_delta
from rch.worker.identity import c_identity

GIB = 1 << 30


@pytest.fixture
def station(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)  # back-off without waiting
    made = []

    def make(**more):
        made.append(Station(tmp_path, FaultPlan(), **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def maker(station):
    """A worker that is equipped for make; what it does there is up to the test."""

    def make(script, **facts):
        c = c_identity("/usr/bin:/bin")
        row = {"identity": c["identity"], "shown": c["shown"], "binds": {}}
        os_release = {"id": "mock", "version_id": "1"}
        facts = {"os": os_release, "machine": "x", "toolchains": {"c": [row]}, "packages": "a1", **facts}
        return station(facts=facts, programs={"make": script})

    return make


def reason(caller):
    """(code, text) of the run here that was granted."""
    _, fields = caller.last(Frame.LOCAL)
    return fields["code"], fields["reason"]


class TestNoCache:
    def test_a_12_every_file_goes_over_into_an_empty_tree(self, station):
        here = station()
        assert here.run("cat in > out; echo x > junk")[0] == 0
        assert here.run("cat in > out")[0] == 0
        assert here.job().pushed["files"] == 0
        assert here.run("cat in > out", no_cache=True)[0] == 0
        assert here.job().pushed["files"] == 4  # junk and out came back and are the project's by now
        assert here.asked("sync")[-1]["reset"] is True
        assert "changes" not in here.asked("prepare")[-1]["roots"][0]
        assert here.run("cat in > out")[0] == 0
        assert here.job().pushed["files"] == 0

    def test_a_12_joins_no_job_that_waits_to_be_taken_home(self, station):
        here = station()
        words = ["sh", "-c", "echo once"]
        here.order(words, worker="mock", caller=Leaver())
        assert here.order(words, worker="mock")[1].output == b"once\n"
        assert here.mock.executions == 1, "an identical command collects it"
        here.order(words, worker="mock", caller=Leaver())
        assert here.order(words, worker="mock", no_cache=True)[1].output == b"once\n"
        assert here.mock.executions == 3

    def test_a_12_trusts_no_stat_data(self, station, monkeypatch):
        here = station()
        seen = []

        def watched(*words, **more):
            seen.append(more["rehash"])
            return build_project(*words, **more)

        monkeypatch.setattr("rch.daemon.projects.build_project", watched)
        here.run("true")
        here.run("true", no_cache=True)
        assert seen == [False, True]


class TestTheSecondLook:
    """SP-04: what runs there is one state of the tree, whichever way the look at it takes."""

    @pytest.fixture(params=[20_000, 0], ids=["before the request", "beside the worker"])
    def here(self, station, monkeypatch, request):
        monkeypatch.setattr("rch.daemon.pushing.LOOK_BESIDE", request.param)
        self.beside = request.param == 0
        return station()

    def test_is_one_request_for_a_small_tree_and_two_for_a_large_one(self, here):
        assert here.run("cat in > out")[0] == 0
        assert ["spec" in fields for fields in here.asked("prepare")] == [not self.beside]
        assert len(here.asked("start")) == self.beside
        assert here.job().pushed["requests"] == 1 + self.beside
        assert (here.project / "out").read_text() == "first"

    def test_an_edit_after_the_scan_reaches_the_job(self, here, monkeypatch):
        from rch.daemon import pushing

        edits = iter([b"second"])

        def edited(*words, **more):
            part = prepare_part(*words, **more)
            for text in edits:
                (here.project / "in").write_bytes(text)
            return part

        prepare_part = pushing.prepare_part
        monkeypatch.setattr(pushing, "prepare_part", edited)
        assert here.run("cat in > out")[0] == 0
        assert (here.project / "out").read_text() == "second"


class TestAPushThatIsTooLarge:
    def test_a_17_runs_here_and_names_size_limit_and_the_five_largest(self, maker):
        here = maker("true")
        here.configure("[transfer]\nmax_transfer_size_mb = 1\n")
        for number in range(7):
            (here.project / f"big{number}").write_bytes(os.urandom(200_000 + number))
        status, caller = here.order(["make"])
        assert status is None
        code, text = reason(caller)
        assert code == "too-large"
        assert "1.4 MB" in text
        assert "limit of 1.0 MB" in text
        assert [n for n in range(7) if f"big{n}" in text] == [2, 3, 4, 5, 6]
        assert here.mock.executions == 0


class TestMemory:
    def test_the_ceiling_is_what_the_machine_has(self, station):
        here = station(facts={"memory_bytes": 8 * GIB})
        here.run("true")
        assert here.asked("prepare")[-1]["spec"]["memory_bytes"] == 8 * GIB

    def test_resource_limits_false_takes_it_away(self, station):
        here = station(facts={"memory_bytes": 8 * GIB})
        here.configure("[execution]\nresource_limits = false\n")
        here.run("true")
        assert here.asked("prepare")[-1]["spec"]["memory_bytes"] is None

    def test_ex_05_a_repeatable_command_out_of_memory_is_repeated_here(self, maker):
        here = maker("tail /dev/zero")
        status, caller = here.order(["make"])
        assert status is None
        assert reason(caller) == ("oom", "mock ran out of memory")
        assert here.store.jobs(limit=2)[1].state == "oom"

    def test_ex_05_on_the_worker_that_was_named_it_ends_as_there(self, station):
        here = station()
        status, _ = here.run("tail /dev/zero")
        assert status == 137
        assert (here.job().state, here.job().reason) == ("oom", "oom")


class TestTheClock:
    def test_pm_04_a_jump_is_refused_once_and_the_next_command_starts_cold(self, maker):
        here = maker("cat in > out")
        assert here.order(["make"])[0] == 0
        here.executor.plan.offset_ns = 900_000_000
        here.executor.request("ping")
        assert here.order(["make"])[0] == 0, "0.9 s are no jump"
        here.executor.plan.offset_ns = -900_000_000
        here.executor.request("ping")
        status, caller = here.order(["make"])
        assert status is None
        code, text = reason(caller)
        assert code == "clock-skew"
        assert "moved by 1.8 s" in text
        trees = len(here.asked("index"))
        assert here.order(["make"])[0] == 0
        assert len(here.asked("index")) == trees + 1, "nothing that was known of the tree counts any more"
        assert here.order(["make"])[0] == 0
        assert len(here.asked("index")) == trees + 1

    def test_pm_04_fetch_after_a_jump_is_judged_by_the_jobs_own_clock(self, maker):
        here = maker("cat in > out")
        plan = here.executor.plan
        plan.offset_ns = -900_000_000
        here.order(["make"])
        (here.project / "in").write_text("second")
        plan.answers["read"] = lambda answer, body: (setattr(plan, "offset_ns", 900_000_000), (answer, body))[1]
        assert here.order(["make"])[0] == 102
        job = here.job()
        plan.answers.clear()
        assert reason(here.order(["make"])[1])[0] == "clock-skew"
        with pytest.raises(ProductsUnverified, match="clock moved while the job ran"):
            here.desk.fetch(job)
        assert (here.project / "out").read_text() == "first"


class TestAnUnportableProject:
    def test_hb_08_is_tried_again_when_packages_came_or_went_there(self, maker):
        here = maker("false")
        status, caller = here.order(["make"])
        assert (status, reason(caller)[0]) == (None, "red-there")
        status, caller = here.order(["make"])
        assert (status, reason(caller)[0]) == (None, "unportable")
        member = here.pool.member("mock")
        facts = {**member.worker.observed.facts, "packages": "b2"}
        assert equipment(facts) != equipment(member.worker.observed.facts)
        member.worker = replace(member.worker, observed=replace(member.worker.observed, facts=facts))
        status, caller = here.order(["make"])
        assert reason(caller)[0] == "red-there"

    def test_hb_08_is_tried_again_when_somebody_says_so(self, maker):
        here = maker("false")
        here.order(["make"])
        assert here.desk.forget_unportable() == 1
        assert reason(here.order(["make"])[1])[0] == "red-there"


class TestHooks:
    def test_a_20_pre_transfer_runs_in_the_root_before_anything_is_sent(self, station):
        here = station()
        here.configure("[hooks]\npre_transfer = 'pwd > made; cat in >> made'\n")
        assert here.run("cat made")[0] == 0
        assert (here.project / "made").read_text() == f"{here.project}\nfirst"
        assert here.mock.content(here.job().roots[0]["key"], "made") == (here.project / "made").read_bytes()

    def test_a_20_pre_transfer_that_fails_is_a_run_here(self, maker):
        here = maker("true")
        here.configure("[hooks]\npre_transfer = 'exit 3'\n")
        status, caller = here.order(["make"])
        assert (status, reason(caller)[0]) == (None, "hook-failed")
        assert "exit status 3" in reason(caller)[1]
        assert here.mock.executions == 0

    def test_a_20_the_others_are_told_to_the_client(self, maker):
        here = maker("true")
        here.configure("[hooks]\npost_compile = 'after'\non_fallback = 'instead'\n")
        _, caller = here.order(["make"])
        assert caller.last(Frame.EXIT)[1]["post_compile"] == "after"
        here.executor.plan.rate = 1.0
        _, caller = here.order(["make"])
        assert caller.last(Frame.LOCAL)[1]["hooks"] == {"on_fallback": "instead"}


class TestCleanupRemote:
    def test_nothing_of_the_project_stays_after_a_verified_return(self, station):
        here = station()
        here.configure("[artifacts]\ncleanup_remote = true\n")
        assert here.run("cat in > out")[0] == 0
        assert (here.project / "out").read_text() == "first"
        root = here.job().roots[0]["key"]
        with pytest.raises(KeyError):
            here.mock.content(root, "in")
        assert here.mock.answer("jobs", {}, b"")[0]["jobs"] == []
        assert here.run("cat in")[0] == 0
        assert here.job().pushed["files"] == 3

    def test_without_it_the_tree_stays_warm(self, station):
        here = station()
        here.run("cat in > out")
        assert here.mock.content(here.job().roots[0]["key"], "in") == b"first"


class TestARecordThatCannotBeWritten:
    def test_changes_nothing_for_the_job_that_runs_already(self, station, monkeypatch):
        here = station()

        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("rch.daemon.pushing.remember_push", full)
        assert here.run("cat in > out")[0] == 0
        assert here.job().products == "verified"
        assert (here.project / "out").read_text() == "first"


class TestWhatReturns:
    def test_a_22_the_keys_reach_the_return(self, maker, monkeypatch):
        here = maker("cat in > out")
        seen = []

        def watched(*words, **more):
            seen.append((more["policy"], more["extra_patterns"]))
            return return_delta(*words, **more)

        monkeypatch.setattr("rch.daemon.delivering.return_delta", watched)
        here.order(["make"])
        here.configure("[artifacts]\nbuild_dir = 'none'\n")
        (here.project / ".rch").mkdir()
        (here.project / ".rch" / "config.toml").write_text("[artifacts]\nextra_patterns = ['target/criterion/**']\n")
        here.order(["make"])
        assert seen == [(BuildDir.FULL, ()), (BuildDir.NONE, ("target/criterion/**",))]


class TestTheModes:
    def test_m_4_mock_is_a_full_job_on_a_worker_in_memory_that_is_in_no_inventory(self, maker):
        here = maker("true")
        status, caller = here.order(["make"], env={"RCH_MODE": "mock"})
        assert status == 127  # its shell knows no make, and a red result is not repeated here
        assert here.mock.executions == 0
        assert here.job().worker == "mock"
        assert caller.output == b""

    def test_a_9_remote_never_falls_back(self, maker):
        here = maker("true")
        here.executor.plan.rate = 1.0
        status, _ = here.order(["make"], env={"RCH_MODE": "remote"}, require_remote=True)
        assert status == 103


class TestAFailedReturn:
    def test_a_25_is_102_the_job_stays_and_fetch_completes_it(self, station):
        here = station()
        here.executor.plan.answers["delta"] = lambda answer, body: ({**answer, "entries": "nonsense"}, body)
        status, caller = here.run("cat in > out")
        assert status == 102
        assert f"rch fetch {here.job().id}" in caller.last(Frame.EXIT)[1]["message"]
        assert here.job().products == "undelivered"
        assert [j["id"] for j in here.mock.answer("jobs", {}, b"")[0]["jobs"]] == [here.job().id]
        assert not (here.project / "out").exists()
        here.executor.plan.answers.clear()
        assert here.desk.fetch(here.job()).products == "verified"
        assert (here.project / "out").read_text() == "first"
        assert here.mock.answer("jobs", {}, b"")[0]["jobs"] == []


class TestPrograms:
    def test_a_21_a_worker_without_the_callers_wrapper_or_compiler_is_no_candidate(self, maker):
        here = maker("true")
        here.mock.lacks = {"clang-17", "sccache"}
        status, caller = here.order(["make"], env={"CC": "sccache clang-17 -m64", "CXX": "g++"})
        assert status is None
        assert reason(caller) == ("capability-missing", "mock: lacks clang-17 (CC), sccache (CC)")
        assert here.mock.executions == 0
        assert here.order(["make"], env={"CC": "gcc-13"})[0] == 0

    def test_a_21_are_asked_for_once_per_connection_and_only_where_named(self, maker):
        here = maker("true")
        here.order(["make"])
        assert here.asked("programs") == []
        for _ in range(3):
            assert here.order(["make"], env={"CXX": "g++-13"})[0] == 0
        assert here.asked("programs") == [{"programs": [["/usr/bin/g++-13", "/bin/g++-13"]]}]

    def test_a_21_that_lie_in_the_project_travel_with_it(self, maker):
        here = maker("true")
        (here.project / "wrap").write_text("#!/bin/sh\n")
        here.mock.lacks = {"wrap"}
        assert here.order(["make"], env={"CC": "./wrap cc", "CXX": str(here.project / "wrap")})[0] == 0
        assert here.asked("programs") == []


class TestTheEnvironment:
    def test_a_21_cargo_build_jobs_never_raises_the_grant(self, maker):
        here = maker("true")
        here.configure("[execution.env]\nCARGO_BUILD_JOBS = '64'\n")
        here.order(["make", "-j2"], env={"CARGO_BUILD_JOBS": "64"})
        assert here.job().slots == 2
        assert here.asked("prepare")[-1]["spec"]["env"]["CARGO_BUILD_JOBS"] == "64"
        here.executor.plan.rate = 1.0
        _, caller = here.order(["make", "-j2"], env={"CARGO_BUILD_JOBS": "64"})
        _, fields = caller.last(Frame.LOCAL)
        assert (fields["slots"], fields["env"]) == (2, {"CARGO_BUILD_JOBS": "64"})
