"""All layers together: precedence, the exceptions to it, trust, and that a changed file counts at once."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from rch.config.layers import Layer
from rch.config.merged import Config, find_project_root
from rch.config.policy import policy_of
from rch.errors import ConfigError


class TestPrecedence:
    def test_option_beats_environment_beats_project_beats_user_beats_system_beats_default(self, desk: Any) -> None:
        def level() -> tuple[object, str]:
            config = desk.load(**env, flags=flags)
            return config.execution.timeout_sec, config.origin("execution.timeout_sec").word

        env: dict[str, str] = {}
        flags: dict[str, Any] = {}
        assert level() == (3600, "default")
        desk.system("[execution]\ntimeout_sec = 1\n")
        assert level() == (1, "system")
        desk.user("[execution]\ntimeout_sec = 2\n")
        assert level() == (2, "user")
        desk.write_project("[execution]\ntimeout_sec = 3\n")
        assert level() == (3, "project")
        flags["execution.timeout_sec"] = 4
        assert level() == (4, "flag")

    def test_the_environment_stands_between_project_and_option(self, desk: Any) -> None:
        desk.user("[transfer]\ncompression_level = 5\n")
        config = desk.load(RCH_COMPRESSION="7")
        assert config.transfer.compression_level == 7
        assert config.artifacts.compression_level == 7
        assert config.origin("artifacts.compression_level").shown() == "environment (RCH_COMPRESSION)"
        config = desk.load(RCH_COMPRESSION="7", flags={"transfer.compression_level": 9})
        assert config.transfer.compression_level == 9

    def test_ds_08_a_file_with_one_key_leaves_the_others_of_its_table_alone(self, desk: Any) -> None:
        desk.user("[transfer]\ntimeout_sec = 10\ngit = 'none'\n")
        desk.write_project("[transfer]\ngit = 'head'\n")
        config = desk.load()
        assert (config.transfer.timeout_sec, config.transfer.git) == (10, "head")

    def test_an_option_that_is_no_key_or_has_a_wrong_value_is_an_error(self, desk: Any) -> None:
        with pytest.raises(ConfigError):
            desk.load(flags={"transfer.gitt": "head"})
        with pytest.raises(ConfigError):
            desk.load(flags={"transfer.git": "all"})

    def test_the_origin_names_file_and_line(self, desk: Any) -> None:
        desk.user("\n\n[transfer]\ngit = 'none'\n")
        origin = desk.load().origin("transfer.git")
        assert (origin.layer, origin.place, origin.line) == (Layer.USER, str(desk.user_file), 4)


class TestTheExceptions:
    @pytest.mark.parametrize("where", ["system", "user", "project"])
    def test_enabled_must_be_true_in_every_file(self, desk: Any, where: str) -> None:
        if where == "project":
            desk.write_project("[project]\nenabled = false\n")
        else:
            getattr(desk, where)("[general]\nenabled = false\n")
        assert not desk.load().enabled
        assert desk.load(RCH_ENABLED="1").enabled
        if where == "system":
            desk.user("[general]\nenabled = true\n")
            assert not desk.load().enabled
            assert desk.load().origin("general.enabled").word == "system"

    @pytest.mark.parametrize("where", ["system", "user", "project"])
    def test_local_only_in_one_file_is_enough(self, desk: Any, where: str) -> None:
        table = "project" if where == "project" else "general"
        {"system": desk.system, "user": desk.user, "project": desk.write_project}[where](
            f"[{table}]\nlocal_only = true\n"
        )
        if where == "system":
            desk.user("[general]\nlocal_only = false\n")
        assert desk.load().local_only

    def test_a_projects_allowed_narrows_the_users_and_never_widens_it(self, desk: Any) -> None:
        desk.user("[workers]\nallowed = ['css', 'heavy']\n")
        desk.write_project("[workers]\nallowed = ['css', 'yto', 'big']\n")
        config = desk.load()
        assert config.allowed == (("css", "heavy"), ("css", "yto", "big"))
        assert config.refusal("css", []) == ""
        assert config.refusal("mia", ["heavy", "big"]) == ""
        assert config.refusal("yto", []) == "not in workers.allowed (css, heavy)"
        assert config.refusal("mia", ["heavy"]) == "not in workers.allowed (css, yto, big)"

    def test_the_users_allowed_replaces_the_systems(self, desk: Any) -> None:
        desk.system("[workers]\nallowed = ['css']\n")
        desk.user("[workers]\nallowed = ['yto']\n")
        assert desk.load().allowed == (("yto",),)

    def test_no_list_of_allowed_workers_means_all(self, desk: Any) -> None:
        desk.user("[workers]\nallowed = []\n")
        assert desk.load().allowed == ()
        assert desk.load().refusal("any", []) == ""

    def test_blocked_and_exclusions_of_all_files_add_up(self, desk: Any) -> None:
        desk.system("[workers]\nblocked = ['a']\n[interception]\nexclude = ['make flash']\n")
        desk.user("[workers]\nblocked = ['b']\n[transfer.exclude]\npatterns = ['big/']\n")
        desk.write_project(
            "[workers]\nblocked = ['c', 'a']\n[interception]\nexclude = ['cargo xtask']\n[transfer]\nexclude_extra = ['testdata/']\n"
        )
        config = desk.load()
        assert config.workers.blocked == ("a", "b", "c")
        assert config.interception.exclude == ("make flash", "cargo xtask")
        assert config.exclude_patterns == ("big/", "testdata/")
        assert config.refusal("x", ["c"]) == "workers.blocked names c"

    def test_the_environment_of_jobs_merges_by_name_and_the_trusted_project_wins(self, desk: Any) -> None:
        desk.user("[execution.env]\nA = 'user'\nB = 'user'\n")
        desk.write_project("[execution.env]\nB = 'project'\nC = 'project'\n")
        desk.trust()
        config = desk.load()
        assert config.execution.env == {"A": "user", "B": "project", "C": "project"}
        assert config.origin("execution.env.A").word == "user"
        assert config.origin("execution.env.B").word == "project"

    def test_tables_with_names_merge_by_key_too(self, desk: Any) -> None:
        desk.system("[presets.heavy]\ntags = ['a']\nsize = 'm'\n")
        desk.user("[presets.heavy]\ntags = ['b']\n")
        preset = desk.load().presets["heavy"]
        assert (preset.tags, preset.size) == (("b",), "m")

    def test_the_size_limit_is_the_projects_or_the_users(self, desk: Any) -> None:
        desk.user("[transfer]\nmax_transfer_size_mb = 300\n")
        assert desk.load().max_transfer_mb == 300
        desk.write_project("[transfer]\nmax_size_mb = 200\n")
        assert desk.load().max_transfer_mb == 200


# What a project sets, the key, the value that holds while it is untrusted, and the value once it is trusted.
INERT = [
    ("[hooks]\npre_transfer = 'x'", "hooks.pre_transfer", "", "x"),
    ("[hooks]\npost_compile = 'x'", "hooks.post_compile", "", "x"),
    ("[execution.env]\nCC = 'x'", "execution.env.CC", None, "x"),
    ("[transfer]\nforce_include = ['x']", "transfer.force_include", [], ["x"]),
    ("[transfer]\nmax_size_mb = 501", "transfer.max_size_mb", None, 501),
    ("[transfer]\ngit = 'full'", "transfer.git", "head", "full"),
    ("[gate]\nallow_paths = ['x']", "gate.allow_paths", [], ["x"]),
    ("[gate]\nscanners = ['x']", "gate.scanners", [], ["x"]),
    ("[dispatch]\ninclude = ['x']", "dispatch.include", [], ["x"]),
    ("[dispatch.templates.a]\nargv = ['x']", "dispatch.templates.a.argv", None, ["x"]),
    ("[interception.toolchains]\npytest = true", "interception.toolchains.pytest", False, True),
    ("[presets.a]\naddr = 'ssh://x'", "presets.a.addr", None, "ssh://x"),
]

# What a project may set without trust.
HARMLESS = [
    ("[transfer]\nmax_size_mb = 500", "transfer.max_size_mb", 500),
    ("[transfer]\ngit = 'none'", "transfer.git", "none"),
    ("[interception.toolchains]\ncargo = false", "interception.toolchains.cargo", False),
    ("[interception.toolchains]\ncargo = true", "interception.toolchains.cargo", True),
    ("[execution]\nnetwork = 'none'", "execution.network", "none"),
    ("[transfer]\nsecret_scan = true", "transfer.secret_scan", True),
    ("[execution]\ntimeout_sec = 9", "execution.timeout_sec", 9),
    ("[workers]\npreferred = 'css'", "workers.preferred", ["css"]),
]


class TestTrust:
    @pytest.mark.parametrize(("text", "key", "before", "after"), INERT, ids=[row[1] for row in INERT])
    def test_keeps_what_runs_programs_or_widens_inert_until_it_is_given(
        self, desk: Any, text: str, key: str, before: object, after: object
    ) -> None:
        desk.write_project(text + "\n")
        config = desk.load()
        assert config.value(key) == before
        assert config.origin(key).word == "untrusted"
        assert config.origin(key).inert == after
        assert config.untrusted == (key,)
        desk.trust()
        config = desk.load()
        assert config.value(key) == after
        assert config.origin(key).word == "project"
        assert config.untrusted == ()

    @pytest.mark.parametrize(("text", "key", "value"), HARMLESS, ids=[row[0] for row in HARMLESS])
    def test_is_not_needed_for_what_narrows(self, desk: Any, text: str, key: str, value: object) -> None:
        desk.write_project(text + "\n")
        config = desk.load()
        assert config.value(key) == value
        assert config.untrusted == ()

    def test_is_measured_against_the_user_and_not_against_the_default(self, desk: Any) -> None:
        desk.user(
            "[transfer]\nmax_transfer_size_mb = 100\nsecret_scan = true\ngit = 'full'\n"
            "[execution]\nnetwork = 'none'\n[interception.toolchains]\ncargo = false\npytest = true\n"
        )
        desk.write_project(
            "[transfer]\nmax_size_mb = 200\nsecret_scan = false\ngit = 'full'\n"
            "[execution]\nnetwork = 'auto'\n[interception.toolchains]\ncargo = true\npytest = true\n"
        )
        config = desk.load()
        assert config.untrusted == (
            "execution.network",
            "interception.toolchains.cargo",
            "transfer.max_size_mb",
            "transfer.secret_scan",
        )
        assert config.max_transfer_mb == 100
        assert config.transfer.secret_scan
        assert config.transfer.git == "full"
        assert config.execution.network == "none"
        assert not config.interception.toolchains.cargo
        assert config.interception.toolchains.pytest

    def test_ends_when_the_file_changes_by_one_byte(self, desk: Any) -> None:
        desk.write_project("[hooks]\npre_transfer = 'x'\n")
        desk.trust()
        assert desk.load().hooks.pre_transfer == "x"
        desk.write_project("[hooks]\npre_transfer = 'y'\n")
        assert desk.load().hooks.pre_transfer == ""
        desk.write_project("[hooks]\npre_transfer = 'x'\n")
        assert desk.load().hooks.pre_transfer == "x"

    def test_of_one_checkout_says_nothing_about_another_with_the_same_file(self, desk: Any, tmp_path: Path) -> None:
        desk.write_project("[hooks]\npre_transfer = './x.sh'\n")
        desk.trust()
        other = tmp_path / "other"
        (other / ".rch").mkdir(parents=True)
        (other / ".rch/config.toml").write_bytes(desk.project_file.read_bytes())
        assert desk.load(cwd=other).hooks.pre_transfer == ""

    def test_is_kept_in_a_private_file(self, desk: Any) -> None:
        desk.write_project("[hooks]\npre_transfer = 'x'\n")
        desk.trust()
        store = desk.state / "trust.json"
        assert store.stat().st_mode & 0o777 == 0o600
        assert len(next(iter(json.loads(store.read_text())["trusted"].values()))) == 64

    @pytest.mark.parametrize("damage", ["", "{", "[]", '{"trusted": 3}', '{"trusted": {"x": 1}}', "null"])
    def test_is_lost_when_its_store_is_damaged(self, desk: Any, damage: str) -> None:
        desk.write_project("[hooks]\npre_transfer = 'x'\n")
        desk.trust()
        (desk.state / "trust.json").write_text(damage)
        assert desk.load().hooks.pre_transfer == ""

    def test_lacking_is_said_once_per_contents(self, desk: Any) -> None:
        desk.write_project("[hooks]\npre_transfer = 'x'\n")
        line = desk.load().untrusted_notice()
        assert "hooks.pre_transfer" in line
        assert line.endswith("next: rch config trust")
        assert desk.load().untrusted_notice() == ""
        desk.write_project("[hooks]\npre_transfer = 'y'\n")
        assert desk.load().untrusted_notice() != ""

    def test_given_by_many_at_once_loses_none(self, desk: Any, tmp_path: Path) -> None:
        import multiprocessing

        context = multiprocessing.get_context("fork")
        store = str(desk.state / "trust.json")
        workers = [context.Process(target=_trust, args=(store, str(tmp_path / f"{i}.toml"))) for i in range(20)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        assert len(json.loads(Path(store).read_text())["trusted"]) == 20


def _trust(store: str, file: str) -> None:
    from rch.config.trust import trust

    trust(store, file, "0" * 64)


class TestTheProjectRoot:
    def test_is_the_nearest_directory_with_a_dot_rch(self, desk: Any) -> None:
        inner = desk.project / "crates/a/src"
        inner.mkdir(parents=True)
        desk.write_project("[project]\nid = 'outer'\n")
        assert desk.load(cwd=inner).project.id == "outer"
        (desk.project / "crates/.rch").mkdir()
        assert desk.load(cwd=inner).project_root == str(desk.project / "crates")

    def test_is_never_the_home_where_a_worker_has_its_cache(self, desk: Any) -> None:
        (desk.home / ".rch").mkdir()
        (desk.home / "src").mkdir()
        assert find_project_root(str(desk.home / "src"), str(desk.home)) is None

    def test_is_absent_without_a_dot_rch(self, desk: Any) -> None:
        config = desk.load()
        assert config.project_root is None
        assert config.project_file is None


class TestAChange:
    def test_of_any_layer_counts_from_the_next_command_on(self, desk: Any) -> None:
        for write, value in ((desk.system, 11), (desk.user, 12), (desk.write_project, 13)):
            write(f"[execution]\ntimeout_sec = {value}\n")
            assert desk.load().execution.timeout_sec == value
        desk.project_file.unlink()
        assert desk.load().execution.timeout_sec == 12
        desk.user_file.write_text("[execution]\ntimeout_sec = 14\n")
        assert desk.load().execution.timeout_sec == 14

    def test_to_something_wrong_is_an_error_and_its_repair_is_none(self, desk: Any) -> None:
        desk.user("[execution]\ntimeout_sec = 0\n")
        for _ in range(2):
            with pytest.raises(ConfigError):
                desk.load()
        desk.user("[execution]\ntimeout_sec = 5\n")
        assert desk.load().execution.timeout_sec == 5

    def test_that_did_not_happen_costs_no_reading(self, desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        desk.user("[execution]\ntimeout_sec = 5\n")
        desk.write_project("[project]\nid = 'x'\n")
        first = desk.load()
        opened: list[object] = []
        monkeypatch.setattr(os, "open", lambda *a, **k: opened.append(a))
        assert desk.load() is first
        assert opened == []

    def test_that_did_not_happen_costs_far_less_than_a_millisecond(self, desk: Any) -> None:
        desk.user("[execution]\ntimeout_sec = 5\n")
        desk.load()
        started = time.perf_counter()
        for _ in range(100):
            desk.load()
        assert (time.perf_counter() - started) / 100 < 0.01  # the budget is 1 ms; ten times for a busy machine

    def test_of_the_environment_counts_too(self, desk: Any) -> None:
        assert desk.load(RCH_COMPRESSION="3").transfer.compression_level == 3
        assert desk.load(RCH_COMPRESSION="4").transfer.compression_level == 4
        assert desk.load().transfer.compression_level == "auto"


class TestTheEnvironment:
    def test_names_another_user_file(self, desk: Any, tmp_path: Path) -> None:
        desk.user("[execution]\ntimeout_sec = 5\n")
        other = tmp_path / "other.toml"
        other.write_text("[execution]\nqueue_wait_sec = 6\n")
        config = desk.load(RCH_CONFIG=str(other))
        assert (config.execution.timeout_sec, config.execution.queue_wait_sec) == (3600, 6)

    @pytest.mark.parametrize("value", ["relative.toml", "/does/not/exist.toml"])
    def test_that_names_no_user_file_is_refused(self, desk: Any, value: str) -> None:
        with pytest.raises(ConfigError) as caught:
            desk.load(RCH_CONFIG=value)
        assert caught.value.code == "bad-environment"

    @pytest.mark.parametrize(
        ("variable", "value", "key", "becomes"),
        [
            ("RCH_ENABLED", "0", "general.enabled", False),
            ("RCH_LOCAL_ONLY", "1", "general.local_only", True),
            ("RCH_REQUIRE_REMOTE", "1", "execution.fallback_to_local", False),
            ("RCH_VERBOSE", "1", "general.verbose", True),
            ("RCH_LOG_LEVEL", "debug", "general.log_level", "debug"),
        ],
    )
    def test_stands_for_keys(self, desk: Any, variable: str, value: str, key: str, becomes: object) -> None:
        config = desk.load(**{variable: value})
        assert config.value(key) == becomes
        assert config.origin(key).place == variable

    def test_with_a_bad_value_is_refused_as_bad_environment(self, desk: Any) -> None:
        with pytest.raises(ConfigError) as caught:
            desk.load(RCH_ENABLED="perhaps")
        assert caught.value.code == "bad-environment"


class TestPlaces:
    def test_follow_the_state_directory_or_xdg(self, desk: Any, tmp_path: Path) -> None:
        assert desk.load().places.state == str(desk.state)
        assert desk.load(XDG_STATE_HOME="/x").places.state == "/x/rch"
        assert desk.load(XDG_STATE_HOME="relative").places.state == str(desk.state)
        config = desk.load(RCH_STATE_DIR="/s/t", XDG_RUNTIME_DIR=str(tmp_path))
        assert (config.places.state, config.socket_path) == ("/s/t", "/s/t/run/rchd.sock")
        assert desk.load(XDG_RUNTIME_DIR=str(tmp_path)).socket_path == f"{tmp_path}/rch/rchd.sock"

    def test_agree_with_the_thin_client(self, desk: Any, tmp_path: Path) -> None:
        from rch.client_paths import run_dir, state_dir

        for env in ({}, {"RCH_STATE_DIR": "/s"}, {"XDG_RUNTIME_DIR": str(tmp_path)}, {"XDG_RUNTIME_DIR": "/missing"}):
            where = desk.load(**env).places
            assert (where.state, where.run) == (state_dir({**desk.env, **env}), run_dir({**desk.env, **env}))

    def test_refuse_a_relative_state_directory(self, desk: Any) -> None:
        with pytest.raises(ConfigError) as caught:
            desk.load(RCH_STATE_DIR="state")
        assert caught.value.code == "bad-environment"

    def test_can_be_set_for_socket_and_log(self, desk: Any) -> None:
        desk.user("[daemon]\nsocket_path = '/run/x/rchd.sock'\n[general]\nlog_file = '~/rch.log'\n")
        config = desk.load()
        assert config.socket_path == "/run/x/rchd.sock"
        assert config.log_file == f"{desk.home}/rch.log"


class TestReadingAConfig:
    def test_lists_every_key_once_with_value_and_origin(self, desk: Any) -> None:
        desk.write_project("[stages.fmt]\ncmd = 'x'\n[execution.env]\nA = '1'\n")
        rows = desk.load().rows()
        names = [name for name, _, _ in rows]
        assert len(names) == len(set(names))
        assert {"general.enabled", "stages.fmt.cmd", "execution.env.A", "gate.allow_skip"} <= set(names)

    def test_refuses_a_key_that_there_is_not_and_names_the_nearest(self, desk: Any) -> None:
        config: Config = desk.load()
        for wrong in ("transfer.gitt", "transfer", "", "a = 1"):
            with pytest.raises(ConfigError):
                config.value(wrong)
        with pytest.raises(ConfigError, match=r"did you mean transfer\.git\?"):
            config.origin("transfer.gitt")

    def test_gives_the_decision_its_policy(self, desk: Any) -> None:
        desk.user(
            "[interception]\nstructure = 'strict'\nconfidence_threshold = 0.5\nexclude = ['make x']\n"
            "[interception.toolchains]\nmake = false\n[execution]\nrun_tests = 'local'\n"
        )
        policy = policy_of(desk.load(RCH_ENABLED="0"))
        assert (policy.structure, policy.confidence_threshold, policy.exclude) == ("strict", 0.5, ("make x",))
        assert policy.toolchains["make"] is False
        assert policy.toolchains["cargo"] is True
        assert policy.run_tests == "local"
        assert policy.enabled is False
        assert policy.full_return is True
