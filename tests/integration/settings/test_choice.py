"""Keys and variables that say whether a command goes out, and to whom."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _makefile(here: Any) -> None:
    here.makefile("echo built")


def where(here: Any, *options: str, **env: str) -> tuple[str, str]:
    """The worker that `make` ran on; "here" with the reason."""
    ended = here.exec("make", options=options, env=env)
    assert (ended.status, ended.out) == (0, "built\n"), ended.err
    return ended.where, ended.reason


class TestSwitchedOff:
    """general.enabled, general.local_only, project.enabled, project.local_only, RCH_ENABLED, RCH_LOCAL_ONLY."""

    def test_nowhere_a_build_goes_out(self, here: Any) -> None:
        assert where(here) == ("b", "")

    @pytest.mark.parametrize("table", ["general", "project"])
    def test_by_a_file_nothing_is_intercepted_until_the_variable_says_so(self, here: Any, table: str) -> None:
        text = f"[{table}]\nenabled = false\n"
        here.user(text) if table == "general" else here.write_project(text)
        assert where(here) == ("here", "disabled")
        assert where(here, RCH_ENABLED="1") == ("b", "")

    @pytest.mark.parametrize("table", ["general", "project"])
    def test_by_local_only_builds_stay_until_the_variable_says_otherwise(self, here: Any, table: str) -> None:
        text = f"[{table}]\nlocal_only = true\n"
        here.user(text) if table == "general" else here.write_project(text)
        assert where(here) == ("here", "local-only")
        assert where(here, RCH_LOCAL_ONLY="0") == ("b", "")

    def test_by_variables_of_the_command_alone(self, here: Any) -> None:
        assert where(here, RCH_LOCAL_ONLY="1") == ("here", "local-only")
        count = len(here.jobs())
        for switch in ({"RCH_ENABLED": "0"}, {"RCH_BYPASS": "1"}):
            ended = here.exec("make", env=switch)
            assert (ended.status, ended.out, ended.where) == (0, "built\n", "")  # the process became make
        assert len(here.jobs()) == count
        assert where(here) == ("b", "")

    def test_on_a_worker_nothing_leaves_again(self, here: Any) -> None:
        ended = here.exec("make", env={"RCH_ON_WORKER": "1"})
        assert (ended.status, ended.out, ended.where) == (0, "built\n", "")

    def test_a_named_worker_is_asked_all_the_same(self, here: Any) -> None:
        here.user("[general]\nenabled = false\nlocal_only = true\n")
        assert where(here, "--worker", "c") == ("c", "")


class TestTheWorkers:
    """workers.*, RCH_WORKER, RCH_WORKERS, RCH_TAG, RCH_ADDR, --worker, --on, --tag."""

    @pytest.mark.parametrize(
        ("text", "worker"),
        [
            ("allowed = ['c']", "c"),
            ("allowed = ['heavy']", "a"),
            ("blocked = ['b']", "a"),
            ("blocked = ['b', 'heavy']", "here"),
            ("preferred = 'c'", "c"),
            ("preferred = ['heavy']", "a"),
            ("min_speed_score = 60", "b"),
            ("min_speed_score = 81", "here"),
        ],
    )
    @pytest.mark.parametrize("file", ["user", "project"])
    def test_are_those_that_the_file_leaves(self, here: Any, file: str, text: str, worker: str) -> None:
        text = f"[workers]\n{text}\n"
        here.user(text) if file == "user" else here.write_project(text)
        assert where(here) == (worker, "no-candidate" if worker == "here" else "")

    def test_of_both_files_are_narrowed_and_blocked_together(self, here: Any) -> None:
        here.user("[workers]\nallowed = ['heavy']\nblocked = ['a']\n")
        here.write_project("[workers]\nallowed = ['a', 'b', 'c']\n")
        assert where(here)[0] == "c"
        here.write_project("[workers]\nallowed = ['a', 'b']\n")
        assert where(here)[0] == "here"

    def test_that_are_preferred_and_cannot_give_way_to_others(self, here: Any) -> None:
        here.user("[workers]\npreferred = 'a'\nblocked = ['a']\n")
        ended = here.exec("make")
        assert (ended.where, here.job(ended)["reason"]) == ("b", "fallback")

    @pytest.mark.parametrize(
        ("env", "worker"),
        [
            ({"RCH_WORKER": "a"}, "a"),
            ({"RCH_WORKERS": "c,a"}, "a"),
            ({"RCH_TAG": "heavy"}, "a"),
            ({"RCH_TAG": "!heavy"}, "b"),
            ({"RCH_WORKERS": "b,c", "RCH_TAG": "heavy"}, "c"),
            ({"RCH_WORKER": "b", "RCH_TAG": "heavy"}, "here"),
            ({"RCH_ADDR": "c"}, "c"),
            ({"FUGUE_ADDR": "c"}, "c"),
            ({"GASTOWN_FUGUE_ADDR": "c"}, "c"),
        ],
    )
    def test_are_those_that_the_variables_leave(self, here: Any, env: dict[str, str], worker: str) -> None:
        assert where(here, **env)[0] == worker

    @pytest.mark.parametrize("env", [{"RCH_WORKER": "bb"}, {"RCH_WORKERS": "a,bb"}, {"RCH_TAG": "heavvy"}])
    def test_a_6_that_there_are_not_are_a_mistake(self, here: Any, env: dict[str, str]) -> None:
        name = next(iter(env))
        ended = here.exec("make", env=env)
        assert (ended.status, ended.where, ended.reason) == (0, "here", "bad-environment")
        assert f"{name}: no " in ended.err
        assert "did you mean" in ended.err
        ended = here.exec("make", env=env, options=("--require-remote",))
        assert (ended.status, ended.out) == (2, "")
        assert ended.err.startswith(f"rch: error[ConfigError] {name}: no ")

    @pytest.mark.parametrize(
        ("options", "env"),
        [
            (("--worker", "cc"), {}),
            (("--on", "cc"), {}),
            (("--tag", "heavvy"), {}),
            ((), {"RCH_ADDR": "cc"}),
        ],
    )
    def test_ux_04_that_an_option_or_an_address_names_wrongly_end_with_2(
        self, here: Any, options: tuple[str, ...], env: dict[str, str]
    ) -> None:
        ended = here.exec("make", options=options, env=env)
        assert (ended.status, ended.out) == (2, "")
        assert ended.err.startswith("rch: error[UsageError] no ")
        assert "did you mean" in ended.err

    def test_a_9_named_beat_every_restriction_and_say_so(self, here: Any) -> None:
        here.user("[workers]\nallowed = ['b']\nblocked = ['c']\nmin_speed_score = 60\n")
        ended = here.exec("make", options=("-v", "--on", "c"), env={"RCH_WORKER": "a", "RCH_TAG": "!heavy"})
        assert (ended.status, ended.where) == (0, "c")
        assert "[rch] --on c overrides RCH_WORKER=a, RCH_TAG=!heavy\n" in ended.err
        assert "[rch] naming c overrides workers.allowed, workers.blocked, workers.min_speed_score\n" in ended.err
        assert "overrides" not in here.exec("make", options=("--on", "c"), env={"RCH_WORKER": "a"}).err

    def test_a_9_the_option_for_tags_replaces_the_variable(self, here: Any) -> None:
        assert where(here, "--tag", "heavy", RCH_TAG="!heavy")[0] == "a"


class TestTheExecutor:
    """RCH_MODE, --mode, RCH_MOCK_SEED, RCH_MOCK_FAILURE_RATE, RCH_REQUIRE_REMOTE, execution.fallback_to_local."""

    def test_is_this_machine_the_mock_or_a_workers_own(self, here: Any) -> None:
        assert where(here, RCH_MODE="local") == ("local", "")
        assert where(here, "--on", "local:") == ("local", "")
        assert where(here, "--mode", "local", RCH_MODE="mock") == ("local", "")
        ended = here.exec("echo", "hi", options=("--require-remote",), env={"RCH_MODE": "mock"})
        assert (ended.status, ended.out, ended.where) == (0, "hi\n", "mock")
        assert where(here, RCH_MODE="remote") == ("b", "")
        assert here.exec("make", env={"RCH_MODE": "cloud"}).reason == "bad-environment"

    def test_mock_fails_as_often_as_it_is_told_and_alike_for_a_seed(self, here: Any) -> None:
        def outcomes(rate: str, seed: str) -> list[int]:
            env = {"RCH_MOCK_FAILURE_RATE": rate, "RCH_MOCK_SEED": seed}
            return [here.exec("echo", "hi", options=("--on", "mock:"), env=env).status for _ in range(3)]

        assert outcomes("0", "1") == [0, 0, 0]
        assert 0 not in outcomes("1", "1")
        assert [outcomes("0.2", str(seed)) for seed in range(4)] != [[0, 0, 0]] * 4

    @pytest.mark.parametrize("how", ["option", "variable", "mode", "file"])
    def test_that_has_to_be_remote_ends_with_103_where_none_is(self, here: Any, how: str) -> None:
        blocked = "[workers]\nblocked = ['a', 'b', 'c']\n"
        here.user(blocked + ("[execution]\nfallback_to_local = false\n" if how == "file" else ""))
        options = ("--require-remote",) if how == "option" else ()
        env = {"variable": {"RCH_REQUIRE_REMOTE": "1"}, "mode": {"RCH_MODE": "remote"}}.get(how, {})
        ended = here.exec("make", options=options, env=env)
        assert (ended.status, ended.out) == (103, "")
        assert ended.err.startswith("rch: error[NotOffloadable] ")
        here.user(blocked)
        assert where(here) == ("here", "no-candidate")

    def test_a_8_the_local_switch_wins_against_the_file(self, here: Any) -> None:
        here.user("[execution]\nfallback_to_local = false\n")
        assert where(here, RCH_LOCAL_ONLY="1") == ("here", "local-only")


class TestWhatIsSaid:
    """general.verbose, RCH_VERBOSE, RCH_QUIET, RCH_DRY_RUN."""

    def test_is_where_and_what_was_moved_when_asked(self, here: Any) -> None:
        def lines(*options: str, **env: str) -> bool:
            return "[rch] b: 1 slots" in here.exec("make", options=options, env=env).err

        assert not lines()
        assert lines("-v")
        assert lines(RCH_VERBOSE="1")
        here.user("[general]\nverbose = true\n")
        assert lines()
        assert not lines("-q")
        assert not lines(RCH_QUIET="1", RCH_VERBOSE="1")

    def test_is_nothing_when_asked_to_be_quiet(self, here: Any) -> None:
        here.user("[workers]\nblocked = ['a', 'b', 'c']\n")
        assert here.exec("make").err.startswith("[rch] local: no-candidate: ")
        assert here.exec("make", env={"RCH_QUIET": "1"}).err == ""
        assert here.exec("make", options=("-q",)).err == ""

    def test_of_a_dry_run_is_the_outcome_and_the_command_runs_here_or_not_at_all(self, here: Any) -> None:
        ended = here.exec("make", env={"RCH_DRY_RUN": "1"})
        assert (ended.status, ended.out, ended.where) == (0, "built\n", "here")
        assert "dry run: make · offload · make" in ended.err
        assert "worker b (1/1 slots free)" in ended.err
        ended = here.exec("make", options=("--dry-run",), env={"RCH_DRY_RUN": "1"})
        assert (ended.status, ended.out) == (0, "")
        assert "worker b" in ended.err
        ended = here.exec("make", env={"RCH_DRY_RUN": "1", "RCH_REQUIRE_REMOTE": "1"})
        assert (ended.status, ended.out) == (103, "")
        assert "worker b" in ended.err

    def test_a_3_is_once_that_a_project_is_not_trusted(self, here: Any) -> None:
        here.write_project("[hooks]\npre_transfer = 'false'\n")
        first, second = here.exec("make"), here.exec("make")
        assert "hooks.pre_transfer have no effect; next: rch config trust" in first.err
        assert (first.where, second.where, second.err) == ("b", "b", "")


class TestAMistakeInAFile:
    """A-5: what goes through `rch exec` runs here and says so, or ends with 2 where remote is required."""

    @pytest.mark.parametrize("file", ["user", "project"])
    def test_is_a_reason_or_an_error(self, here: Any, file: str) -> None:
        text = "[transfer]\ngitt = 'head'\n"
        here.user(text) if file == "user" else here.write_project(text)
        ended = here.exec("make")
        assert (ended.status, ended.out, ended.where, ended.reason) == (0, "built\n", "here", "bad-config")
        assert "config.toml:2: unknown key transfer.gitt; did you mean transfer.git?" in ended.err
        for required in (("--require-remote",), ("--worker", "a"), ("--on", "a")):
            ended = here.exec("make", options=required)
            assert (ended.status, ended.out) == (2, "")
            assert ended.err.startswith("rch: error[ConfigError] ")

    def test_counts_from_the_next_command_on_and_so_does_its_end(self, here: Any) -> None:
        assert where(here) == ("b", "")
        here.user("[general\n")
        assert here.exec("make").reason == "bad-config"
        here.user("")
        assert where(here) == ("b", "")
