"""The environment variables: what each may hold, which one decides, which exclude one another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rch.config.switches import (
    CLIENT_NAMES,
    DAEMON_NAMES,
    VARIABLES,
    Secret,
    Switches,
    nearest_variable,
    read_switches,
    unknown_variables,
)
from rch.errors import ConfigError, UsageError

TOP = Path(__file__).parents[3]


class TestASwitch:
    @pytest.mark.parametrize("word", ["1", "true", "yes", "on", "TRUE", "Yes", "ON"])
    def test_takes_the_words_for_on(self, word: str) -> None:
        assert read_switches({"RCH_LOCAL_ONLY": word}).local_only is True

    @pytest.mark.parametrize("word", ["0", "false", "no", "off", "False", "OFF"])
    def test_takes_the_words_for_off(self, word: str) -> None:
        assert read_switches({"RCH_ENABLED": word}).enabled is False

    def test_that_is_empty_is_unset(self) -> None:
        assert read_switches({variable.name: "" for variable in VARIABLES}) == Switches()

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("RCH_ENABLED", "maybe"),
            ("RCH_ENABLED", "2"),
            ("RCH_BYPASS", " 1"),
            ("RCH_COMPRESSION", "0"),
            ("RCH_COMPRESSION", "20"),
            ("RCH_COMPRESSION", "3.0"),
            ("RCH_COMPRESSION", "٣"),
            ("RCH_MODE", "Remote"),
            ("RCH_WORKER", "a b"),
            ("RCH_WORKERS", "a,,b"),
            ("RCH_WORKERS", ","),
            ("RCH_STATE_DIR", "relative"),
            ("RCH_CONFIG", "~/x"),
            ("RCH_REQUEST_TIMEOUT", "0"),
            ("RCH_REQUEST_TIMEOUT", "inf"),
            ("RCH_REQUEST_TIMEOUT", "nan"),
            ("RCH_MOCK_FAILURE_RATE", "1.5"),
            ("RCH_MOCK_SEED", "-1"),
            ("RCH_LOG_LEVEL", "loud"),
            ("RCH_RATE_LIMIT", "9" * 30),
            ("RCH_TAG", "a\nb"),
        ],
    )
    def test_with_a_bad_value_is_bad_environment_and_names_the_variable(self, name: str, value: str) -> None:
        with pytest.raises(ConfigError) as caught:
            read_switches({name: value})
        assert caught.value.code == "bad-environment"
        assert caught.value.key == name
        assert caught.value.exit_status == 2
        assert name in caught.value.one_line()
        assert "\n" not in caught.value.one_line()

    def test_of_each_kind_is_read(self) -> None:
        found = read_switches(
            {
                "RCH_WORKERS": "css, yto",
                "RCH_TAG": "heavy,!slow",
                "RCH_MODE": "mock",
                "RCH_COMPRESSION": "19",
                "RCH_REQUEST_TIMEOUT": "2.5",
                "RCH_MOCK_SEED": "7",
                "RCH_MOCK_FAILURE_RATE": "0.1",
                "RCH_TOKEN": "s3cret",
                "RCH_DRY_RUN": "1",
                "RCH_NO_CACHE": "yes",
                "RCH_INVENTORY": "/i",
                "RCH_MAX_FILE_MB": "50",
            }
        )
        assert found.workers == ("css", "yto")
        assert (found.tag, found.mode, found.compression, found.request_timeout_s) == ("heavy,!slow", "mock", 19, 2.5)
        assert (found.mock_seed, found.mock_failure_rate, found.max_file_mb) == (7, 0.1, 50)
        assert found.dry_run
        assert found.no_cache
        assert found.token == Secret("s3cret")

    def test_that_holds_a_token_never_shows_it(self) -> None:
        found = read_switches({"RCH_TOKEN": "s3cret"})
        assert "s3cret" not in repr(found)
        assert "s3cret" not in str(found)
        assert found.token is not None
        assert found.token.reveal() == "s3cret"

    @given(st.dictionaries(st.sampled_from([v.name for v in VARIABLES]), st.text(max_size=20), max_size=4))
    def test_of_any_value_is_read_or_refused_and_nothing_else(self, env: dict[str, str]) -> None:
        try:
            assert isinstance(read_switches(env), Switches)
        except ConfigError as error:
            assert error.code == "bad-environment"


class TestTheOrder:
    def test_is_on_worker_bypass_enabled_local_only(self) -> None:
        env = {"RCH_ON_WORKER": "1", "RCH_BYPASS": "1", "RCH_ENABLED": "0", "RCH_LOCAL_ONLY": "1"}
        for name, reason in (
            ("RCH_ON_WORKER", "on-worker"),
            ("RCH_BYPASS", "bypass"),
            ("RCH_ENABLED", "disabled"),
            ("RCH_LOCAL_ONLY", "local-only"),
        ):
            assert read_switches(env).local_reason() == reason
            del env[name]
        assert read_switches(env).local_reason() == ""

    def test_lets_the_emergency_exit_work_whatever_the_rest_holds(self) -> None:
        assert read_switches({"RCH_BYPASS": "1", "RCH_COMPRESSION": "broken"}).local_reason() == "bypass"
        assert read_switches({"RCH_ON_WORKER": "1", "RCH_MODE": "broken"}).local_reason() == "on-worker"

    def test_lets_quiet_beat_verbose(self) -> None:
        found = read_switches({"RCH_QUIET": "1", "RCH_VERBOSE": "1"})
        assert found.quiet
        assert found.verbose is False

    def test_takes_the_address_variables_in_theirs_and_names_a_disagreement_once(self) -> None:
        env = {"RCH_ADDR": "local:", "FUGUE_ADDR": "ssh://a", "GASTOWN_FUGUE_ADDR": "ssh://b"}
        found = read_switches(env)
        assert (found.addr, found.addr_from) == ("local:", "RCH_ADDR")
        assert found.notices == ("RCH_ADDR=local: counts, not FUGUE_ADDR=ssh://a",)
        found = read_switches({"RCH_ADDR": "", "FUGUE_ADDR": "x:", "GASTOWN_FUGUE_ADDR": "x:"})
        assert (found.addr, found.addr_from, found.notices) == ("x:", "FUGUE_ADDR", ())


class TestAConflict:
    @pytest.mark.parametrize("stays", ["RCH_BYPASS=1", "RCH_ENABLED=0", "RCH_LOCAL_ONLY=1"])
    @pytest.mark.parametrize(
        "goes", ["RCH_REQUIRE_REMOTE=1", "RCH_MODE=remote", "--require-remote", "--worker css", "--on ssh://x"]
    )
    def test_between_staying_and_going_names_both_and_is_exit_2(self, stays: str, goes: str) -> None:
        found = Switches(
            enabled=False if stays == "RCH_ENABLED=0" else None,
            bypass=stays == "RCH_BYPASS=1",
            local_only=stays == "RCH_LOCAL_ONLY=1",
            require_remote=goes == "RCH_REQUIRE_REMOTE=1",
            mode="remote" if goes == "RCH_MODE=remote" else None,
        )
        named = [goes] if goes.startswith(("--worker", "--on")) else []
        with pytest.raises(UsageError) as caught:
            found.check_conflicts(*named, require_remote=goes == "--require-remote")
        assert caught.value.exit_status == 2
        assert stays.partition("=")[0] in caught.value.message
        assert goes.partition("=")[0] in caught.value.message

    @pytest.mark.parametrize(
        "env",
        [
            {},
            {"RCH_LOCAL_ONLY": "1"},
            {"RCH_REQUIRE_REMOTE": "1"},
            {"RCH_LOCAL_ONLY": "1", "RCH_WORKER": "css", "RCH_TAG": "a"},
        ],
    )
    def test_is_none_where_only_one_side_speaks_or_a_mere_restriction(self, env: dict[str, str]) -> None:
        read_switches(env).check_conflicts()


class TestTheTable:
    def test_says_who_reads_each_variable(self) -> None:
        assert set(DAEMON_NAMES) == {
            "RCH_REQUEST_TIMEOUT",
            "RCH_COMMAND_TIMEOUT",
            "RCH_STATE_DIR",
            "RCH_CONFIG",
            "RCH_INVENTORY",
            "RCH_LOG_LEVEL",
            "RCH_CORS_ORIGIN",
            "RCH_RATE_LIMIT",
            "RCH_WORKSPACE_DIR",
            "RCH_MAX_FILE_MB",
        }
        assert "RCH_ADDR" in CLIENT_NAMES
        assert "GASTOWN_FUGUE_ADDR" in CLIENT_NAMES
        assert "RCH_JOB" not in CLIENT_NAMES

    def test_is_the_same_as_the_thin_clients(self) -> None:
        from rch.client_options import DAEMON_VARIABLES

        assert set(DAEMON_VARIABLES) == set(DAEMON_NAMES)

    def test_names_what_means_nothing_and_what_was_meant(self) -> None:
        assert unknown_variables({"RCH_LOCALONLY": "1", "RCH_JOB": "x", "HOME": "/"}) == ("RCH_LOCALONLY",)
        assert nearest_variable("RCH_LOCALONLY") == "RCH_LOCAL_ONLY"
        assert nearest_variable("RCH_QQQ") == ""

    def test_is_read_with_the_standard_library_alone(self) -> None:
        code = (
            "import sys; sys.path.insert(0, sys.argv[1]); import rch.config.switches, rch.config.places;"
            "print(sorted({m.partition('.')[0] for m in sys.modules} & {'pydantic', 'click', 'yaml', 'rich', 'tomlkit'}))"
        )
        ended = subprocess.run(
            [sys.executable, "-I", "-c", code, str(TOP)], capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.stdout.strip() == "[]", ended.stderr
