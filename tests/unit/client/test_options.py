"""The command line of ``rch exec`` and the switches, as tables."""

from __future__ import annotations

import pytest

from rch.client_options import DAEMON_VARIABLES, UsageError, choose, parse


class TestTheCommandLine:
    def test_takes_everything_behind_the_dashes_as_the_command(self):
        options = parse(["--worker", "css", "-v", "--output=errors", "--", "make", "-j2", "--", "--worker", "x"])
        assert options.argv == ["make", "-j2", "--", "--worker", "x"]
        assert (options.worker, options.verbose, options.output) == ("css", True, "errors")

    def test_the_dashes_may_be_left_out(self):
        options = parse(["--dry-run", "cargo", "build", "-v"])
        assert (options.argv, options.dry_run, options.verbose) == (["cargo", "build", "-v"], True, False)

    @pytest.mark.parametrize(
        ("words", "field", "value"),
        [
            (["--tag", "gpu"], "tag", "gpu"),
            (["--on", "ssh://x"], "on", "ssh://x"),
            (["--addr", "ssh://x"], "on", "ssh://x"),
            (["--mode", "mock"], "mode", "mock"),
            (["--require-remote"], "require_remote", True),
            (["--no-cache"], "no_cache", True),
            (["-q"], "quiet", True),
            (["-i"], "interactive", True),
            (["-vi"], "interactive", True),
            (["--output", "summary"], "output", "summary"),
            (["--show-worker"], "show_worker", True),
            (["--json"], "json", True),
        ],
    )
    def test_knows_each_option(self, words, field, value):
        assert getattr(parse([*words, "--", "make"]), field) == value

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ([], "no command; write it behind --, as in: rch exec -- cargo build"),
            (["--"], "no command"),
            (["--", ""], "the command is an empty word"),
            (["--frobnicate", "--", "make"], "unknown option '--frobnicate'"),
            (["-x", "--", "make"], "unknown option '-x'"),
            (["-vx", "--", "make"], "unknown option '-vx'"),
            (["--worker"], "--worker needs a value"),
            (["--worker", "--", "make"], "--worker needs a value"),
            (["--worker=", "--", "make"], "--worker needs a value that is not empty"),
            (["--dry-run=1", "--", "make"], "--dry-run takes no value"),
            (["--worker", "a", "--worker", "b", "--", "make"], "--worker was given twice: 'a' and 'b'"),
            (["--worker", "a", "--tag", "b", "--", "make"], "--worker and --tag exclude each other"),
            (["--worker", "a", "--on", "b", "--", "make"], "--worker and --on exclude each other"),
            (["--tag", "a", "--on", "b", "--", "make"], "--tag and --on exclude each other"),
            (["--mode", "mock", "--worker", "b", "--", "make"], "--mode mock and --worker exclude each other"),
            (["-q", "-v", "--", "make"], "-q and -v exclude each other"),
            (["--output", "some", "--", "make"], "--output must be one of all, errors, summary, progress, got 'some'"),
            (["--mode", "cloud", "--", "make"], "--mode must be one of local, remote, mock, got 'cloud'"),
        ],
    )
    def test_ux_04_refuses_a_mistake_by_name(self, words, message):
        with pytest.raises(UsageError) as caught:
            parse(words)
        assert str(caught.value).startswith(message)

    def test_help_needs_no_command(self):
        assert parse(["--help"]).help


def how(env: dict[str, str], *words: str):
    return choose(parse([*words, "--", "make"]), env)


class TestTheSwitches:
    @pytest.mark.parametrize(
        ("env", "kind", "code"),
        [
            ({}, "ask", ""),
            ({"RCH_ON_WORKER": "1", "RCH_BYPASS": "1", "RCH_REQUIRE_REMOTE": "1"}, "exec", "on-worker"),
            ({"RCH_BYPASS": "1", "RCH_ENABLED": "0", "RCH_LOCAL_ONLY": "1"}, "exec", "bypass"),
            ({"RCH_ENABLED": "0", "RCH_LOCAL_ONLY": "1"}, "exec", "disabled"),
            ({"RCH_LOCAL_ONLY": "1"}, "local", "local-only"),
            ({"RCH_ENABLED": "1", "RCH_BYPASS": "0", "RCH_LOCAL_ONLY": "no"}, "ask", ""),
            ({"RCH_BYPASS": "", "RCH_ENABLED": "", "RCH_LOCAL_ONLY": ""}, "ask", ""),
            ({"RCH_ON_WORKER": "0"}, "ask", ""),
        ],
    )
    def test_the_first_one_set_decides(self, env, kind, code):
        choice = how(env)
        assert (choice.how, choice.code) == (kind, code)

    @pytest.mark.parametrize("word", ["1", "true", "yes", "on", "TRUE", "Yes"])
    def test_take_all_words_for_yes(self, word):
        assert how({"RCH_LOCAL_ONLY": word}).code == "local-only"

    @pytest.mark.parametrize("word", ["0", "false", "no", "off", "OFF"])
    def test_take_all_words_for_no(self, word):
        assert how({"RCH_ENABLED": word}).code == "disabled"

    @pytest.mark.parametrize(
        ("env", "message"),
        [
            ({"RCH_LOCAL_ONLY": "maybe"}, "RCH_LOCAL_ONLY must be one of 1 true yes on or 0 false no off, got 'maybe'"),
            ({"RCH_BYPASS": "2"}, "RCH_BYPASS must be"),
            ({"RCH_MODE": "cloud"}, "RCH_MODE must be one of local remote mock, got 'cloud'"),
            ({"RCH_COMPRESSION": "20"}, "RCH_COMPRESSION must be a whole number from 1 to 19, got '20'"),
            ({"RCH_COMPRESSION": "3.5"}, "RCH_COMPRESSION must be a whole number"),
            ({"RCH_REQUEST_TIMEOUT": "0"}, "RCH_REQUEST_TIMEOUT must be a number of seconds"),
            ({"RCH_QUIET": "shh"}, "RCH_QUIET must be"),
        ],
    )
    def test_a_bad_value_means_here_or_usage_where_remote_is_required(self, env, message):
        choice = how(env)
        assert (choice.how, choice.code) == ("local", "bad-environment")
        assert choice.line.startswith(message)
        for demand in (["--require-remote"], ["--worker", "css"], ["--on", "x"]):
            choice = how(env, *demand)
            assert (choice.how, choice.code) == ("refuse", "bad-environment")

    def test_a_demand_that_cannot_be_read_is_still_a_demand(self):
        choice = how({"RCH_REQUIRE_REMOTE": "definitely"})
        assert (choice.how, choice.code) == ("refuse", "bad-environment")
        assert choice.line.startswith("RCH_REQUIRE_REMOTE must be")

    def test_the_emergency_exit_works_whatever_else_is_wrong(self):
        assert how({"RCH_BYPASS": "1", "RCH_MODE": "cloud"}).code == "bypass"

    @pytest.mark.parametrize("local", [{"RCH_BYPASS": "1"}, {"RCH_ENABLED": "0"}, {"RCH_LOCAL_ONLY": "1"}])
    @pytest.mark.parametrize(
        ("env", "words", "name"),
        [
            ({"RCH_REQUIRE_REMOTE": "1"}, [], "RCH_REQUIRE_REMOTE"),
            ({"RCH_MODE": "remote"}, [], "RCH_MODE=remote"),
            ({}, ["--require-remote"], "--require-remote"),
            ({}, ["--worker", "css"], "--worker"),
            ({}, ["--on", "x"], "--on"),
            ({}, ["--addr", "x"], "--on"),
        ],
    )
    def test_a_contradiction_names_both_and_runs_nothing(self, local, env, words, name):
        choice = how({**local, **env}, *words)
        assert choice.how == "refuse"
        assert next(iter(local)) in choice.line
        assert name in choice.line

    @pytest.mark.parametrize("env", [{"RCH_ADDR": "css"}, {"RCH_WORKER": "css"}, {"RCH_TAG": "gpu"}])
    def test_a_local_switch_beats_what_only_restricts(self, env):
        assert how({"RCH_LOCAL_ONLY": "1", **env}).code == "local-only"

    def test_a_place_that_was_named_is_a_demand(self):
        assert how({"RCH_ADDR": "css"}).demand == "RCH_ADDR"
        assert how({"FUGUE_ADDR": "css"}).demand == "FUGUE_ADDR"
        assert how({"RCH_WORKER": "css", "RCH_TAG": "gpu"}).demand == ""
        assert how({}, "--worker", "css").demand == "--worker"

    def test_quiet_beats_verbose_and_a_flag_beats_both(self):
        assert (
            how({"RCH_QUIET": "1", "RCH_VERBOSE": "1"}).quiet,
            how({"RCH_QUIET": "1", "RCH_VERBOSE": "1"}).verbose,
        ) == (True, False)
        assert (how({"RCH_QUIET": "1"}, "-v").quiet, how({"RCH_QUIET": "1"}, "-v").verbose) == (False, True)
        assert (how({"RCH_VERBOSE": "1"}, "-q").quiet, how({"RCH_VERBOSE": "1"}, "-q").verbose) == (True, False)

    def test_the_flag_for_a_dry_run_beats_the_variable(self):
        assert how({"RCH_DRY_RUN": "1"}).dry_run == "first"
        assert how({"RCH_DRY_RUN": "1"}, "--dry-run").dry_run == "only"


def test_the_lists_of_variables_are_those_of_the_configuration():
    switches = pytest.importorskip("rch.config.switches")
    assert set(DAEMON_VARIABLES) == set(switches.DAEMON_NAMES)
