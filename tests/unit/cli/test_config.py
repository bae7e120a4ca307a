"""``rch config``."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def project(shell: Any) -> Path:
    file: Path = shell.cwd / ".rch/config.toml"
    file.parent.mkdir()
    return file


class TestShowAndGet:
    def test_show_gives_each_value_with_its_origin(self, shell: Any, project: Path) -> None:
        project.write_text("[transfer]\ngit = 'full'\n[execution]\ntimeout_sec = 7\n")
        rows = {row["key"]: row for row in shell("config", "show", "--json", RCH_COMPRESSION="5").json}
        assert rows["execution.timeout_sec"] == {
            "key": "execution.timeout_sec",
            "value": 7,
            "origin": "project",
            "file": str(project),
            "line": 4,
        }
        assert (rows["transfer.git"]["value"], rows["transfer.git"]["origin"], rows["transfer.git"]["inert"]) == (
            "head",
            "untrusted",
            "full",
        )
        assert rows["transfer.compression_level"]["origin"] == "environment"
        assert rows["general.enabled"]["origin"] == "default"
        text = shell("config", "show")
        assert f"execution.timeout_sec = 7  # project ({project}:4)" in text.out
        assert f'transfer.git = "head"  # untrusted ({project}:2), "full" has no effect' in text.out
        assert "next: rch config trust" in text.err

    def test_show_changed_leaves_the_defaults_out(self, shell: Any, project: Path) -> None:
        project.write_text("[execution]\ntimeout_sec = 7\n")
        assert len(shell("config", "show", "--changed", "--json").json) == 1

    def test_get_prints_the_bare_value(self, shell: Any) -> None:
        assert shell("config", "get", "transfer.git").out == "head\n"
        assert shell("config", "get", "execution.timeout_sec").out == "3600\n"
        assert shell("config", "get", "workers.allowed", "--json").json["value"] == []

    def test_get_of_no_key_is_exit_2_and_names_the_nearest(self, shell: Any) -> None:
        ended = shell("config", "get", "transfer.gitt")
        assert ended.status == 2
        assert "did you mean transfer.git?" in ended.err

    def test_get_of_a_section_names_its_keys(self, shell: Any) -> None:
        ended = shell("config", "get", "retention")
        assert ended.status == 2
        assert "retention is a section; its keys are retention." in ended.err
        assert "did you mean" not in ended.err


class TestSet:
    def test_takes_no_broken_list_for_names(self, shell: Any, project: Path) -> None:
        for value in ('["a", 3]', "[css, yto]", '"css'):
            ended = shell("config", "set", "workers.allowed", value)
            assert ended.status == 2
            assert "workers.allowed must be a list of strings" in ended.err
        assert shell("config", "set", "workers.allowed", "css, yto").status == 0
        assert shell("config", "get", "workers.allowed").out == '["css", "yto"]\n'

    def test_takes_a_negative_number_for_a_value(self, shell: Any) -> None:
        ended = shell("config", "set", "--user", "transfer.timeout_sec", "-5")
        assert ended.status == 2
        assert 'must be a whole number from 1 to 31536000, got "-5"' in ended.err

    def test_names_the_command_for_the_file_in_which_a_key_counts(self, shell: Any, project: Path) -> None:
        ended = shell("config", "set", "hooks.on_fallback", "notify me")
        assert ended.status == 2
        assert ended.err.endswith("; next: rch config set --user hooks.on_fallback 'notify me'\n")
        ended = shell("config", "set", "--user", "project.name", "x")
        assert ended.err.endswith("; next: rch config set project.name x\n")

    def test_goes_into_the_projects_file_or_the_users(self, shell: Any, project: Path) -> None:
        assert shell("config", "set", "execution.timeout_sec", "7200").status == 0
        assert project.read_text() == "[execution]\ntimeout_sec = 7200\n"
        assert shell("config", "set", "--user", "general.log_level", "debug").status == 0
        assert (shell.home / ".config/rch/config.toml").read_text() == '[general]\nlog_level = "debug"\n'
        assert shell("config", "get", "general.log_level").out == "debug\n"

    def test_without_a_dot_rch_goes_to_the_top_of_the_repository(self, shell: Any) -> None:
        (shell.cwd / ".git").mkdir()
        shell.cwd = shell.cwd / "a"
        shell.cwd.mkdir()
        shell("config", "set", "project.id", "x")
        assert (shell.cwd.parent / ".rch/config.toml").exists()

    @pytest.mark.parametrize(
        ("key", "value"),
        [("execution.timeout_sec", "soon"), ("general.enabled", "false"), ("nonsense", "1"), ("daemon.pid_file", "x")],
    )
    def test_writes_nothing_on_error(self, shell: Any, project: Path, key: str, value: str) -> None:
        assert shell("config", "set", key, value).status == 2
        assert not project.exists()

    def test_refuses_the_home_as_a_project(self, shell: Any) -> None:
        shell.cwd = shell.home
        assert shell("config", "set", "project.id", "x").status == 2


class TestEdit:
    def _editor(self, shell: Any, script: str) -> str:
        path = shell.home / "editor"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    def test_saves_what_validates(self, shell: Any, project: Path) -> None:
        editor = self._editor(shell, 'printf "[project]\\nid = \\"x\\"\\n" > "$1"')
        assert shell("config", "edit", EDITOR=editor).status == 0
        assert project.read_text() == '[project]\nid = "x"\n'

    def test_keeps_the_file_and_the_draft_when_it_does_not_validate(self, shell: Any, project: Path) -> None:
        project.write_text("[project]\nid = 'old'\n")
        editor = self._editor(shell, 'printf "[project]\\nidd = 1\\n" > "$1"')
        ended = shell("config", "edit", EDITOR="false", VISUAL=editor)
        assert ended.status == 2
        assert f"{project}:2: unknown key project.idd" in ended.err
        assert project.read_text() == "[project]\nid = 'old'\n"
        draft = Path(ended.err.splitlines()[-1].rpartition(" ")[2])
        assert draft.read_text() == "[project]\nidd = 1\n"
        draft.unlink()

    def test_keeps_the_file_when_the_editor_fails_or_changes_nothing(self, shell: Any, project: Path) -> None:
        project.write_text("[project]\nid = 'old'\n")
        assert shell("config", "edit", EDITOR="false").status == 1
        assert shell("config", "edit", EDITOR="true").status == 0
        assert project.read_text() == "[project]\nid = 'old'\n"

    @pytest.mark.parametrize(("editor", "why"), [("/no/such/editor", "No such file"), ('vi "', "No closing quotation")])
    def test_names_an_editor_that_cannot_be_started(
        self, shell: Any, project: Path, editor: str, why: str, tmp_path: Path
    ) -> None:
        ended = shell("config", "edit", EDITOR=editor, TMPDIR=str(tmp_path))
        assert ended.status == 2
        assert ended.err.startswith(f"rch: error[UsageError] the editor {editor} cannot be started ({why}")
        assert "; next: export EDITOR=" in ended.err
        assert not list(tmp_path.glob("rch-config-*"))


class TestInitAndReset:
    def test_reset_without_an_answer_says_so_and_keeps_the_file(self, shell: Any, project: Path) -> None:
        assert shell("config", "init").status == 0
        ended = shell("config", "reset")
        assert ended.status == 2
        assert ended.err.splitlines()[-1].startswith("rch: error[UsageError] a question got no answer")
        assert shell("config", "init").status == 2, "the file is there"

    @pytest.mark.parametrize("flags", [[], ["--user"]])
    def test_init_writes_a_file_that_changes_nothing_and_never_overwrites(self, shell: Any, flags: list[str]) -> None:
        before = shell("config", "show").out
        assert shell("config", "init", *flags).status == 0
        assert shell("config", "show").out == before
        again = shell("config", "init", *flags)
        assert again.status == 2
        assert "exists" in again.err

    def test_reset_keeps_a_backup_and_asks_first(self, shell: Any, project: Path) -> None:
        project.write_text("[project]\nid = 'x'\n")
        assert shell("config", "reset", stdin="n\n").status == 1
        assert project.exists()
        assert shell("config", "reset", "--yes").status == 0
        assert not project.exists()
        (backup,) = project.parent.glob("config.toml.bak.*")
        assert backup.read_text() == "[project]\nid = 'x'\n"
        assert shell("config", "reset", "--yes").status == 0

    def test_reset_of_one_key_leaves_the_rest(self, shell: Any, project: Path) -> None:
        project.write_text("[project]\nid = 'x'\nname = 'y'\n")
        assert shell("config", "reset", "project.id").status == 0
        assert project.read_text() == "[project]\nname = 'y'\n"


class TestValidate:
    def test_is_0_with_a_valid_file_and_without_any(self, shell: Any, project: Path) -> None:
        ended = shell("config", "validate")
        assert (ended.status, ended.out) == (0, "no file, defaults\n")
        project.write_text("[project]\nid = 'x'\n")
        assert shell("config", "validate").status == 0

    def test_is_2_and_lists_every_problem_with_file_and_line(self, shell: Any, project: Path) -> None:
        project.write_text("[project]\nidd = 'x'\n[transfer]\ngit = 3\n")
        ended = shell("config", "validate")
        assert ended.status == 2
        assert [line.split()[2] for line in ended.err.splitlines()] == [f"{project}:2:", f"{project}:4:"]
        found = shell("config", "validate", "--json").json
        assert found["valid"] is False
        assert [(p["line"], p["key"], p["nearest"]) for p in found["problems"]] == [
            (2, "project.idd", "project.id"),
            (4, "transfer.git", ""),
        ]

    def test_takes_a_file_by_name(self, shell: Any, project: Path) -> None:
        project.write_text("[project]\nid = 'x'\n")
        assert shell("config", "validate", str(project)).status == 0
        elsewhere = shell.cwd / "mine.toml"
        elsewhere.write_text("[project]\nid = 'x'\n")
        assert shell("config", "validate", str(elsewhere)).status == 2
        assert shell("config", "validate", "missing.toml").status == 2

    def test_is_2_for_a_bad_variable(self, shell: Any) -> None:
        assert shell("config", "validate", RCH_ENABLED="perhaps").status == 2


class TestTrust:
    def test_prints_what_becomes_active_and_ends_with_the_next_change(self, shell: Any, project: Path) -> None:
        project.write_text("[hooks]\npre_transfer = './x.sh'\n")
        assert shell("config", "get", "hooks.pre_transfer").out == "\n"
        ended = shell("config", "trust")
        assert ended.status == 0
        assert 'active: hooks.pre_transfer = "./x.sh"' in ended.out
        assert shell("config", "get", "hooks.pre_transfer").out == "./x.sh\n"
        project.write_text("[hooks]\npre_transfer = './y.sh'\n")
        assert shell("config", "get", "hooks.pre_transfer").out == "\n"

    def test_can_be_taken_back(self, shell: Any, project: Path) -> None:
        project.write_text("[hooks]\npre_transfer = './x.sh'\n")
        shell("config", "trust")
        assert shell("config", "trust", "--revoke").status == 0
        assert shell("config", "get", "hooks.pre_transfer").out == "\n"

    def test_needs_a_file_that_validates(self, shell: Any, project: Path) -> None:
        assert shell("config", "trust").status == 2
        project.write_text("[hooks]\npre = 'x'\n")
        assert shell("config", "trust").status == 2
