"""The schema: every key has a type, a default, a scope, an effect; the tables of the specification are complete."""

from __future__ import annotations

import datetime as dt

import pytest
from pydantic import ValidationError

from rch.config.keys import (
    KeyRow,
    check_value,
    dotted,
    expectation,
    key_rows,
    nearest,
    plain,
    retired,
    row_of,
    split_dotted,
    table_of,
)
from rch.config.schema import RETIRED, Settings
from rch.toolchains import TOOLCHAINS

ROWS = list(key_rows().values())

# key, scope, default: what the specification says, one by one.
SPECIFIED = [
    ("general.enabled", "U", True),
    ("general.local_only", "U", False),
    ("general.verbose", "U", False),
    ("general.log_level", "U", "info"),
    ("general.log_file", "U", None),
    ("daemon.socket_path", "U", None),
    ("daemon.heartbeat_interval_sec", "U", 30),
    ("daemon.benchmark_interval_hours", "U", 6),
    ("daemon.breaker_failures", "U", 5),
    ("daemon.breaker_cooldown_sec", "U", 60),
    ("transfer.compression_level", "U", "auto"),
    ("transfer.max_transfer_size_mb", "U", 500),
    ("transfer.timeout_sec", "U", 300),
    (
        "transfer.exclude.patterns",
        "U",
        ["target/", "node_modules/", "*.rlib", "*.rmeta", "*.o", "*.a", "*.so", "*.dylib"],
    ),
    ("transfer.exclude_extra", "P", []),
    ("transfer.force_include", "U, P*", []),
    ("transfer.max_size_mb", "P", None),
    ("transfer.git", "U, P", "head"),
    ("transfer.secret_scan", "U, P", False),
    ("execution.streaming_output", "U", True),
    ("execution.fallback_to_local", "U", True),
    ("execution.timeout_sec", "U, P", 3600),
    ("execution.resource_limits", "U", True),
    ("execution.env", "U, P*", {}),
    ("execution.cores", "P", None),
    ("execution.preflight_check", "P", False),
    ("execution.enable_queueing", "U", True),
    ("execution.queue_wait_sec", "U", 60),
    ("execution.run_tests", "U, P", "remote"),
    ("execution.network", "U, P", "auto"),
    ("artifacts.compression_level", "U", "auto"),
    ("artifacts.cleanup_remote", "U", False),
    ("artifacts.build_dir", "U, P", "auto"),
    ("artifacts.extra_patterns", "P", []),
    ("artifacts.cache_ttl_hours", "U, P", 24),
    ("workers.discovery_enabled", "U", True),
    ("workers.allowed", "U, P", []),
    ("workers.preferred", "U, P", []),
    ("workers.blocked", "U, P", []),
    ("workers.min_speed_score", "U, P", 0.0),
    ("hooks.pre_transfer", "U, P*", ""),
    ("hooks.post_compile", "U, P*", ""),
    ("hooks.on_fallback", "U", ""),
    ("metrics.enabled", "U", True),
    ("metrics.prometheus_port", "U", 0),
    ("metrics.history_retention_days", "U", 30),
    ("cost_benefit.min_compile_time_ms", "U", 2000),
    ("cost_benefit.benefit_threshold", "U", 0.8),
    ("cost_benefit.always_remote", "U", []),
    ("cost_benefit.never_remote", "U", []),
    ("project.id", "P", None),
    ("project.name", "P", None),
    ("project.enabled", "P", True),
    ("project.local_only", "P", False),
    ("interception.structure", "U, P", "transparent"),
    ("interception.confidence_threshold", "U, P", 0.85),
    ("interception.exclude", "U, P", []),
    ("interception.http_hook_port", "U", 0),
    ("selection.strategy", "U", "balanced"),
    ("selection.weights.speed", "U", 0.35),
    ("selection.weights.slots", "U", 0.25),
    ("selection.weights.affinity", "U", 0.25),
    ("selection.weights.cost", "U", 0.15),
    ("selection.backend", "U", "builtin"),
    ("selection.backend_by_tag", "U", {}),
    ("retention.keep_projects", "U", 5),
    ("retention.failed_hours", "U", 24),
    ("stages.*.timeout", "P", 1200),
    ("stages.*.enabled", "P", True),
    ("cache.skip_dirs", "P", []),
    ("dependencies.required", "P", []),
    ("workspace.exclude", "P", []),
    ("profiles.*.json", "P", False),
    ("presets.*.addr", "U, P*", None),
    ("dispatch.max_context_mb", "U, P*", 500),
    ("dispatch.scale_queue", "U, P*", 0),
    ("dispatch.templates.*.argv", "U, P*", []),
    ("gate.allow_skip", "U", False),
]

# A value of another type for each kind of key, and one out of range where there is a range.
WRONG = {bool: ["yes", 1], int: ["8", 1.5, True], str: [3, True, ["a"]], float: ["high", True]}


class TestTheSchema:
    @pytest.mark.parametrize(("name", "scope", "default"), SPECIFIED, ids=[row[0] for row in SPECIFIED])
    def test_has_the_key_with_its_scope_and_default(self, name: str, scope: str, default: object) -> None:
        row = next(row for row in ROWS if row.name == name)
        assert row.scope == scope
        assert plain(row.default) == default
        assert type(plain(row.default)) is type(default)

    @pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
    def test_says_of_each_key_what_it_does_who_asks_for_it_and_what_it_may_be(self, row: KeyRow) -> None:
        assert len(row.effect) > 3
        assert row.origin
        assert row.scope in {"U", "P", "U, P", "U, P*", "P*"}
        assert expectation(row) not in {"", "a value"}
        if row.default is None:
            assert row.shown_default, "a key without default says what holds instead"

    @pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
    def test_accepts_the_default_and_the_example_of_each_key(self, row: KeyRow) -> None:
        if row.default is not None:
            assert check_value(row, plain(row.default)) == row.default
        if row.example is not None:
            check_value(row, row.example)

    @pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
    def test_refuses_a_value_of_another_type_for_each_key(self, row: KeyRow) -> None:
        refused: list[object] = [dt.date(2020, 1, 1)]
        if not isinstance(row.default, bool) and row.name != "stages.*.check":
            refused.append(True)
        if type(row.default) in WRONG:
            refused += WRONG[type(row.default)]
            if type(row.default) is str and row.name.endswith("compression_level"):
                refused = [value for value in refused if value != 3]
        if type(row.default) is tuple:
            refused += [3, [1], [[]]]
        if type(row.default) is dict:
            refused += ["a", {"A": 1}]
        for value in refused:
            with pytest.raises(ValidationError):
                check_value(row, value)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("transfer.compression_level", 0),
            ("transfer.compression_level", 20),
            ("transfer.compression_level", "fast"),
            ("transfer.git", "shallow"),
            ("execution.timeout_sec", 0),
            ("execution.cores", 0),
            ("metrics.prometheus_port", 65536),
            ("workers.min_speed_score", float("nan")),
            ("workers.min_speed_score", 100.5),
            ("interception.confidence_threshold", 1.01),
            ("daemon.socket_path", "relative/rchd.sock"),
            ("daemon.socket_path", "~/rchd.sock"),
            ("daemon.socket_path", "/" + "x" * 100),
            ("general.log_file", "rch.log"),
            ("project.id", "two words"),
            ("project.id", ""),
            ("execution.env", {"RCH_WORKER": "css"}),
            ("execution.env", {"no-name": "1"}),
            ("execution.env", {"A": "nul\0"}),
            ("workers.blocked", ["a b"]),
            ("selection.backend_by_tag", {"heavy": "k8s"}),
        ],
    )
    def test_refuses_what_is_out_of_range(self, name: str, value: object) -> None:
        row = next(row for row in ROWS if row.name == name)
        with pytest.raises(ValidationError):
            check_value(row, value)

    def test_takes_one_name_for_a_list_where_the_specification_says_so(self) -> None:
        row = next(row for row in ROWS if row.name == "workers.preferred")
        assert check_value(row, "css") == ("css",)

    def test_knows_exactly_the_toolchains_that_there_are_with_their_own_defaults(self) -> None:
        ours = {row.path[-1]: row.default for row in ROWS if row.path[:2] == ("interception", "toolchains")}
        assert ours == {tool.name: tool.on_by_default for tool in TOOLCHAINS}

    def test_is_frozen(self) -> None:
        with pytest.raises(ValidationError):
            Settings().transfer.git = "full"  # type: ignore[misc]  # that it cannot be is what the test shows


class TestLookup:
    def test_finds_rows_of_names_that_people_choose(self) -> None:
        assert row_of(("presets", "my heavy", "tags")) is key_rows()[("presets", "*", "tags")]
        assert row_of(("execution", "env", "CC")) is key_rows()[("execution", "env")]
        assert row_of(("execution", "env", "CC", "x")) is None
        assert row_of(("transfer",)) is None
        assert table_of(("stages", "fmt")) is not None
        assert table_of(("stages",)) is None

    @pytest.mark.parametrize(
        ("typed", "meant"),
        [
            ("transfer.gitt", "transfer.git"),
            ("general.enable", "general.enabled"),
            ("timeout_sec", "transfer.timeout_sec"),
            ("presets.big.tag", "presets.big.tags"),
            ("stages.fmt.comand", "stages.fmt.command"),
            ("interception.toolchain.go", "interception.toolchains.go"),
            ("worker.allowed", "workers.allowed"),
        ],
    )
    def test_names_the_nearest_key(self, typed: str, meant: str) -> None:
        assert nearest(split_dotted(typed) or ()) == meant

    def test_dotted_names_go_there_and_back(self) -> None:
        for path in [("a",), ("a", "b c", 'q"x'), ("é", "1-2_3")]:
            assert split_dotted(dotted(path)) == path
        for text in ["", "a..b", "a = 1", "a\nb", "[a]"]:
            assert split_dotted(text) is None

    @pytest.mark.parametrize("name", sorted(RETIRED))
    def test_a_retired_key_names_its_replacement_and_is_gone_from_the_schema(self, name: str) -> None:
        assert retired(tuple(name.split(".")))
        assert row_of(tuple(name.split("."))) is None
