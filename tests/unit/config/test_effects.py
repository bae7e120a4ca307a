"""Every key and every variable has an effect, and a test that is red without it (coverage A-1).

The tables name those tests; a key that nobody has put here, or a test that is gone, is an error. Keys whose feature is
not built stand below the title of the issue that builds it: they are checked when a file is read, and nothing else.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

from rch.client_options import ADDRESS_VARIABLES
from rch.config.keys import key_rows
from rch.config.switches import VARIABLES

TESTS = Path(__file__).parents[2]

CHOICE, RUN = "integration/settings/test_choice.py", "integration/settings/test_run.py"
RCHD, BULK = "integration/settings/test_rchd.py", "integration/settings/test_bulk.py"
DECIDING, PIPELINE = "unit/config/test_deciding_keys.py", "unit/daemon/test_pipeline.py"

SWITCHED_FILE = f"{CHOICE}::TestSwitchedOff::test_by_a_file_nothing_is_intercepted_until_the_variable_says_so"
LOCAL_FILE = f"{CHOICE}::TestSwitchedOff::test_by_local_only_builds_stay_until_the_variable_says_otherwise"
SWITCHED_VARIABLE = f"{CHOICE}::TestSwitchedOff::test_by_variables_of_the_command_alone"
WORKERS = f"{CHOICE}::TestTheWorkers::test_are_those_that_the_file_leaves"
NARROWED = f"{CHOICE}::TestTheWorkers::test_of_both_files_are_narrowed_and_blocked_together"
NAMED = f"{CHOICE}::TestTheWorkers::test_are_those_that_the_variables_leave"
SAID = f"{CHOICE}::TestWhatIsSaid::test_is_where_and_what_was_moved_when_asked"
BOUND = f"{CHOICE}::TestTheExecutor::test_that_has_to_be_remote_ends_with_103_where_none_is"
MOCK = f"{CHOICE}::TestTheExecutor::test_mock_fails_as_often_as_it_is_told_and_alike_for_a_seed"
LEVEL = f"{RCHD}::TestTheLog::test_holds_what_the_level_lets_through_and_the_variable_beats_the_key"
TUNED = f"{BULK}::test_compression_and_patience_are_those_of_the_files_and_the_variable_beats_them"
PATTERNS = f"{RUN}::TestWhatTravels::test_is_told_by_the_patterns_of_both_files"
LIMIT = f"{RUN}::TestWhatTravels::test_a_17_is_no_more_than_the_limit_of_the_user_or_less_by_the_project"
QUEUE = f"{RUN}::TestTheRun::test_waits_for_a_slot_as_long_as_it_may_or_not_at_all"
COLOURS = f"{RUN}::TestTheRun::test_sees_the_callers_colours_and_none_that_we_make_up"
HOOKS = f"{RUN}::TestHooks::test_run_here_before_the_push_and_after_placement_once"
TOOLCHAIN = f"{DECIDING}::TestAFile::test_switches_a_toolchain"
COLLECTED = (
    "unit/daemon/test_collecting.py::TestTheCollector::"
    "test_c_16_asks_each_connected_worker_with_the_ages_of_the_configuration"
)
JOB = f"{RUN}::TestTheRun::test_has_none_of_our_variables_but_those_of_a_job"

KEYS: dict[str, tuple[str, ...]] = {
    "general.enabled": (SWITCHED_FILE,),
    "general.local_only": (LOCAL_FILE,),
    "general.verbose": (
        SAID,
        "unit/cli/test_broken.py::TestWhatIsSaid::test_is_more_by_flag_variable_or_key_and_a_flag_or_quiet_beats_them",
    ),
    "general.log_level": (LEVEL,),
    "general.log_file": (f"{RCHD}::TestTheLog::test_lies_where_the_key_says_as_private_json",),
    "daemon.socket_path": (
        f"{RCHD}::TestTheSocket::test_lies_where_the_key_says_in_a_private_directory_and_everybody_finds_it",
    ),
    "daemon.heartbeat_interval_sec": (
        f"{RCHD}::TestTheWatch::test_looks_at_a_workers_health_as_often_as_the_key_says",
    ),
    "daemon.benchmark_interval_hours": (
        f"{RCHD}::TestTheWatch::test_measures_idle_workers_as_often_as_the_key_says",
        "unit/daemon/test_measure.py::TestNobodyIsMeasured::test_d_8_where_the_interval_is_0",
    ),
    "transfer.compression_level": (TUNED,),
    "transfer.max_transfer_size_mb": (LIMIT,),
    "transfer.max_size_mb": (LIMIT,),
    "transfer.timeout_sec": (TUNED,),
    "transfer.exclude.patterns": (PATTERNS,),
    "transfer.exclude_extra": (PATTERNS,),
    "transfer.force_include": (PATTERNS,),
    "transfer.git": (f"{RUN}::TestWhatTravels::test_of_git_is_nothing_the_head_or_all",),
    "transfer.secret_scan": (f"{RUN}::TestWhatTravels::test_e_6_is_nothing_while_a_scan_is_asked_for",),
    "execution.streaming_output": (f"{RUN}::TestTheRun::test_shows_its_output_at_once_or_at_the_end",),
    "execution.fallback_to_local": (BOUND,),
    "execution.timeout_sec": (f"{RUN}::TestTheRun::test_ends_with_124_at_its_limit",),
    "execution.resource_limits": (
        f"{PIPELINE}::TestMemory::test_the_ceiling_is_what_the_machine_has",
        f"{PIPELINE}::TestMemory::test_resource_limits_false_takes_it_away",
    ),
    "execution.cores": (
        f"{RUN}::TestTheRun::test_has_the_slots_of_the_key_and_no_more_than_it_asks_for_itself",
        f"{RUN}::TestTheRun::test_has_the_slots_of_the_key_instead_of_the_estimate",
    ),
    "execution.enable_queueing": (QUEUE,),
    "execution.queue_wait_sec": (QUEUE,),
    "execution.run_tests": (f"{DECIDING}::TestAFile::test_says_where_tests_run",),
    "execution.preflight_check": (
        "integration/test_intercept.py::TestPreflight::test_b_09_a_check_here_first_is_a_wish",
    ),
    "execution.network": (f"{RUN}::TestTheRun::test_has_a_network_of_its_own_where_it_shall_have_none",),
    "execution.env": (f"{RUN}::TestTheRun::test_has_the_variables_of_the_files_there_and_here",),
    "artifacts.compression_level": (TUNED,),
    "artifacts.build_dir": (f"{RUN}::TestWhatComesBack::test_of_the_build_directory_is_what_the_key_says",),
    "artifacts.extra_patterns": (f"{RUN}::TestWhatComesBack::test_a_22_are_the_extra_patterns_whatever_else",),
    "artifacts.cleanup_remote": (f"{RUN}::TestWhatComesBack::test_leaves_nothing_there_where_that_is_asked_for",),
    "workers.allowed": (WORKERS, NARROWED),
    "workers.preferred": (
        WORKERS,
        f"{CHOICE}::TestTheWorkers::test_that_are_preferred_and_cannot_give_way_to_others",
    ),
    "workers.blocked": (WORKERS, NARROWED),
    "workers.min_speed_score": (WORKERS,),
    "workers.discovery_enabled": ("unit/cli/test_proposals.py::test_hosts_are_proposed_where_the_key_lets_them",),
    "artifacts.cache_ttl_hours": (COLLECTED,),
    "retention.failed_hours": (COLLECTED,),
    "retention.keep_projects": (COLLECTED,),
    "metrics.history_retention_days": (
        "unit/daemon/test_collecting.py::TestTheCollector::test_c_16_history_and_logs_go_after_their_days_and_not_before",
    ),
    "hooks.pre_transfer": (HOOKS, f"{RUN}::TestHooks::test_that_fail_before_the_push_keep_the_command_here"),
    "hooks.post_compile": (HOOKS, f"{RUN}::TestHooks::test_of_a_project_wait_for_trust"),
    "hooks.on_fallback": (f"{RUN}::TestHooks::test_run_before_a_run_here_that_could_have_gone_out",),
    "project.id": (
        f"{RUN}::TestTheProject::test_has_the_name_and_the_identity_of_its_file",
        f"{RUN}::TestTheProject::test_of_two_checkouts_with_one_id_share_no_tree",
    ),
    "project.name": (f"{RUN}::TestTheProject::test_has_the_name_and_the_identity_of_its_file",),
    "project.enabled": (SWITCHED_FILE,),
    "project.local_only": (LOCAL_FILE,),
    "interception.structure": (f"{DECIDING}::TestAFile::test_says_whether_a_pipeline_is_looked_into",),
    "interception.confidence_threshold": (f"{DECIDING}::TestAFile::test_says_how_sure_a_match_must_be",),
    "interception.exclude": (f"{DECIDING}::TestAFile::test_leaves_commands_out",),
    "interception.toolchains": (TOOLCHAIN,),
    "interception.http_hook_port": (
        f"{RCHD}::TestTheHttpHook::test_listens_on_the_loopback_address_where_the_key_says",
    ),
}

LATER: dict[str, tuple[str, ...]] = {
    "Fifteen agents, four workers, one calm workstation: the scheduler": (
        "daemon.breaker_failures",
        "daemon.breaker_cooldown_sec",
        "metrics.enabled",
        "metrics.prometheus_port",
        "cost_benefit",
        "selection.strategy",
        "selection.weights",
    ),
    "A job is durable: disconnect, come back, look, replay; stages, modes and addresses on top": (
        "stages",
        "cache",
        "dependencies",
        "workspace",
        "profiles",
        "presets",
    ),
    "Send the repository's exact state away, get branches back": ("dispatch", "gate"),
    "Beyond one scheduler: the fleet of a whole company, on Slurm": (
        "selection.backend",
        "selection.backend_by_tag",
        "selection.slurm",
        "selection.slurm_by_tag",
    ),
}

ALL_VARIABLES: dict[str, tuple[str, ...]] = {
    "RCH_ENABLED": (SWITCHED_FILE, SWITCHED_VARIABLE),
    "RCH_BYPASS": (SWITCHED_VARIABLE,),
    "RCH_LOCAL_ONLY": (LOCAL_FILE, SWITCHED_VARIABLE),
    "RCH_REQUIRE_REMOTE": (BOUND,),
    "RCH_DRY_RUN": (
        f"{CHOICE}::TestWhatIsSaid::test_of_a_dry_run_is_the_outcome_and_the_command_runs_here_or_not_at_all",
    ),
    "RCH_WORKER": (NAMED,),
    "RCH_WORKERS": (NAMED,),
    "RCH_TAG": (NAMED,),
    "RCH_MODE": (f"{CHOICE}::TestTheExecutor::test_is_this_machine_the_mock_or_a_workers_own", BOUND),
    "RCH_ADDR": (NAMED,),
    "FUGUE_ADDR": (NAMED,),
    "GASTOWN_FUGUE_ADDR": (NAMED,),
    "RCH_COMPRESSION": (TUNED,),
    "RCH_NO_CACHE": (f"{RUN}::TestWhatComesBack::test_a_12_without_cache_starts_there_from_what_is_here_alone",),
    "RCH_VERBOSE": (SAID,),
    "RCH_QUIET": (f"{CHOICE}::TestWhatIsSaid::test_is_nothing_when_asked_to_be_quiet", SAID),
    "RCH_REQUEST_TIMEOUT": (
        f"{RCHD}::TestTheEnvironment::test_rch_request_timeout_bounds_a_request_to_an_rchd_that_hangs",
    ),
    "RCH_MOCK_SEED": (MOCK,),
    "RCH_MOCK_FAILURE_RATE": (MOCK,),
    "RCH_STATE_DIR": (f"{RCHD}::TestTheEnvironment::test_a_11_a_state_directory_is_an_rchd_of_its_own",),
    "RCH_CONFIG": (f"{RCHD}::TestTheEnvironment::test_rch_config_replaces_the_users_file_alone",),
    "RCH_INVENTORY": (f"{RCHD}::TestTheEnvironment::test_rch_inventory_replaces_the_inventory",),
    "RCH_LOG_LEVEL": (LEVEL,),
    "RCH_ON_WORKER": (
        f"{CHOICE}::TestSwitchedOff::test_on_a_worker_nothing_leaves_again",
        f"{RCHD}::TestTheEnvironment::test_rch_on_worker_starts_no_rchd",
        JOB,
    ),
    "RCH_JOB": (JOB,),
    "RCH_EXIT_STATUS": (HOOKS,),
    "NO_COLOR": (
        COLOURS,
        "unit/cli/test_main.py::TestAsAProcess::test_draws_tables_on_a_terminal_and_obeys_no_color",
    ),
    **dict.fromkeys(
        ("TERM", "COLORTERM", "CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR", "CARGO_TERM_COLOR", "GCC_COLORS"), (COLOURS,)
    ),
}

LATER_VARIABLES = {
    "A job is durable: disconnect, come back, look, replay; stages, modes and addresses on top": (
        "RCH_TOKEN",
        "RCH_COMMAND_TIMEOUT",
        "RCH_CORS_ORIGIN",
        "RCH_RATE_LIMIT",
        "RCH_WORKSPACE_DIR",
        "RCH_MAX_FILE_MB",
    ),
}

NAMED_TESTS = sorted({test for tests in (*KEYS.values(), *ALL_VARIABLES.values()) for test in tests})


def entries(name: str) -> list[str]:
    """Where the key *name* stands: itself or a table around it, in one of the two tables."""
    parts = name.split(".")
    around = [".".join(parts[: i + 1]) for i in range(len(parts))]
    found = [f"KEYS: {entry}" for entry in around if entry in KEYS]
    return found + [f"{title}: {entry}" for title, later in LATER.items() for entry in around if entry in later]


@functools.cache
def _tests_of(path: str) -> frozenset[str]:
    """``Class::function`` or ``function``, all tests of a file."""
    found = set()
    for node in ast.parse((TESTS / path).read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return frozenset(found)


@pytest.mark.parametrize("name", sorted(row.name for row in key_rows().values()))
def test_a_key_has_one_entry(name: str) -> None:
    assert len(entries(name)) == 1, f"{name}: put the test of its effect into KEYS (or its issue into LATER)"


@pytest.mark.parametrize("name", sorted({*(one.name for one in VARIABLES), *ADDRESS_VARIABLES}))
def test_a_variable_has_one_entry(name: str) -> None:
    later = [title for title, names in LATER_VARIABLES.items() if name in names]
    assert len(later) + (name in ALL_VARIABLES) == 1, f"{name}: put the test of its effect into ALL_VARIABLES"


@pytest.mark.parametrize("test", NAMED_TESTS)
def test_a_test_that_is_named_is_there(test: str) -> None:
    path, _, name = test.partition("::")
    assert name in _tests_of(path), f"{test} is gone: name the test that is red without the effect"


def test_no_entry_is_left_of_a_key_that_is_gone() -> None:
    names = {row.name for row in key_rows().values()}
    tables = {".".join(name.split(".")[:i]) for name in names for i in range(1, name.count(".") + 1)}
    assert {*KEYS, *(entry for later in LATER.values() for entry in later)} <= names | tables
