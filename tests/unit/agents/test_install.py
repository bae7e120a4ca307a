"""Settings of other programs are edited without a trace that is not ours (coverage B-11)."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from rch.agents.dialect import DIALECTS, HARNESSES
from rch.agents.edit import backups
from rch.agents.install import command_of, install, places_of, status, uninstall
from rch.agents.programs import Setting
from rch.errors import ConfigError

EDITED = (*DIALECTS, "opencode")


@pytest.fixture
def setting(tmp_path):
    return Setting(str(tmp_path / "state"), "/p/python", named=True)


@pytest.fixture
def env(tmp_path):
    (tmp_path / "home").mkdir()
    return {"HOME": str(tmp_path / "home"), "PATH": "/usr/local/bin:/usr/bin"}


def tree(env) -> dict[str, bytes]:
    home = Path(env["HOME"])
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


FOREIGN = {
    "claude": (".claude/settings.json", '{\n    "z": 1,\n    "hooks": {"PreToolUse": [{"matcher": "Bash", "hooks": [{"type": "command", "command": "dcg"}]}],\n    "Stop": []}, "é": "ü"}'),
    "codex": (".codex/hooks.json", '{"hooks":{"PreToolUse":[{"matcher":"^Bash$","hooks":[{"type":"command","command":"dcg"}]}]}}\n'),
    "gemini": (".gemini/settings.json", '{\r\n\t"security": {"auth": {"selectedType": "gemini-api-key"}},\r\n\t"hooks": {"BeforeTool": [{"matcher": "run_shell_command", "hooks": [{"type": "command", "command": "dcg"}]}]}\r\n}\r\n'),
    "cursor": (".cursor/hooks.json", '{"version": 1, "hooks": {"preToolUse": [{"command": "dcg", "matcher": "Shell"}]}}'),
}  # fmt: skip


@pytest.mark.parametrize("harness", EDITED)
class TestAnInstallation:
    def test_into_nothing_leaves_nothing_behind(self, setting, env, harness):
        assert set(install(harness, setting, env).values()) == {"written"}
        assert status(harness, setting, env).state == "installed"
        uninstall(harness, setting, env)
        assert tree(env) == {}
        assert status(harness, setting, env).state == "missing"

    def test_twice_is_once(self, setting, env, harness):
        install(harness, setting, env)
        before = tree(env)
        assert set(install(harness, setting, env).values()) == {"unchanged"}
        assert tree(env) == before

    def test_of_another_day_is_replaced_not_doubled(self, setting, env, harness, tmp_path):
        install(harness, setting, env)
        texts = {name: data.replace(b"rch-hook", b"rch-hook --old") for name, data in tree(env).items()}
        for name, data in texts.items():
            Path(env["HOME"], name).write_bytes(data)
        install(harness, setting, env)
        assert status(harness, setting, env).state == "installed"
        for place in places_of(harness, setting, env):
            assert Path(place.path).read_text().count("--old") == 0


@pytest.mark.parametrize("harness", sorted(FOREIGN))
class TestAForeignFile:
    @pytest.fixture(autouse=True)
    def given(self, env, harness):
        name, text = FOREIGN[harness]
        path = Path(env["HOME"], name)
        path.parent.mkdir()
        path.write_bytes(text.encode())
        os.chmod(path, 0o640)
        self.path, self.text = path, text.encode()

    def test_is_the_same_to_the_byte_after_install_and_uninstall(self, setting, env, harness):
        before = tree(env)
        install(harness, setting, env)
        assert json.loads(self.path.read_text())
        uninstall(harness, setting, env)
        assert tree(env) == before
        assert stat.S_IMODE(self.path.stat().st_mode) == 0o640

    def test_keeps_its_entries_and_their_order_behind_ours(self, setting, env, harness):
        install(harness, setting, env)
        now, was = json.loads(self.path.read_text()), json.loads(self.text)
        assert [key for key in now if key in was] == list(was)
        (event,) = [name for name in was["hooks"] if was["hooks"][name]]
        assert now["hooks"][event][1:] == was["hooks"][event]
        assert "rch-hook" in json.dumps(now["hooks"][event][0])
        assert stat.S_IMODE(self.path.stat().st_mode) == 0o640

    def test_has_one_backup_of_what_it_was(self, setting, env, harness):
        install(harness, setting, env)
        install(harness, setting, env)
        (backup,) = backups(str(self.path))
        assert Path(backup).read_bytes() == self.text
        assert re.fullmatch(re.escape(str(self.path)) + r"\.bak\.[0-9]+", backup)

    def test_b_11_keeps_that_one_when_an_entry_of_another_day_is_replaced(self, setting, env, harness):
        install(harness, setting, env)
        self.path.write_bytes(self.path.read_bytes().replace(b"rch-hook", b"rch-hook --old"))
        install(harness, setting, env)
        (backup,) = backups(str(self.path))
        assert Path(backup).read_bytes() == self.text

    def test_that_was_edited_meanwhile_loses_our_entries_alone(self, setting, env, harness):
        install(harness, setting, env)
        document = json.loads(self.path.read_text())
        document["mine"] = [1]
        self.path.write_text(json.dumps(document))
        uninstall(harness, setting, env)
        assert json.loads(self.path.read_text()) == {**json.loads(self.text), "mine": [1]}

    def test_behind_a_link_stays_behind_it(self, setting, env, harness, tmp_path):
        real = tmp_path / "dotfiles.json"
        os.rename(self.path, real)
        os.symlink(real, self.path)
        install(harness, setting, env)
        assert self.path.is_symlink()
        assert "rch-hook" in real.read_text()

    @pytest.mark.parametrize("text", ['{"a": 1,}', "// c\n{}", '{"a": 1, "a": 2}', "[]", '{"hooks": []}', "\xff"])
    def test_that_would_not_survive_is_refused_untouched(self, setting, env, harness, text):
        self.path.write_bytes(text.encode("latin-1"))
        before = tree(env)
        with pytest.raises(ConfigError):
            install(harness, setting, env)
        assert tree(env) == before
        assert status(harness, setting, env).state == "unreadable"


class TestCodex:
    CONFIG = 'model = "m"  # mine\n\n[shell_environment_policy]\ninherit = "core"\nset = { A = "1", PATH = "/opt/x:/usr/bin" }\n\n[features]\nx = true\n'

    def test_gets_the_shims_before_the_path_its_user_set(self, setting, env):
        path = Path(env["HOME"], ".codex", "config.toml")
        path.parent.mkdir()
        path.write_text(self.CONFIG)
        install("codex", setting, env)
        assert f'PATH = "{setting.shims}:/opt/x:/usr/bin"' in path.read_text()
        assert "# mine" in path.read_text()
        path.write_text(path.read_text() + "y = 1\n")
        uninstall("codex", setting, env)
        assert path.read_text() == self.CONFIG + "y = 1\n"

    def test_gets_the_callers_path_where_its_user_set_none(self, setting, env):
        install("codex", setting, env)
        assert (
            f'PATH = "{setting.shims}:/usr/local/bin:/usr/bin"' in Path(env["HOME"], ".codex/config.toml").read_text()
        )

    def test_file_that_cannot_be_read_stops_everything_before_anything_is_written(self, setting, env):
        path = Path(env["HOME"], ".codex", "config.toml")
        path.parent.mkdir()
        path.write_text("[")
        with pytest.raises(ConfigError):
            install("codex", setting, env)
        assert set(tree(env)) == {".codex/config.toml"}


class TestTheInstalledCommand:
    @pytest.mark.parametrize("harness", HARNESSES)
    def test_is_silent_where_rch_has_gone(self, setting, harness):
        done = subprocess.run(
            ["sh", "-c", command_of(harness, setting)], input=b"{}", capture_output=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")

    def test_survives_strange_places(self, tmp_path):
        strange = Setting(str(tmp_path / "a b'$x\"é;"), "/p")
        os.makedirs(strange.directory)
        Path(strange.hook).write_text("#!/bin/sh\necho ran $1\n")
        os.chmod(strange.hook, 0o700)
        done = subprocess.run(["sh", "-c", command_of("claude", strange)], capture_output=True, timeout=60, check=False)
        assert done.stdout == b"ran claude\n"


def test_b_11_a_neighbour_that_blocks_still_blocks_the_original_text(setting, env):
    """Its entry and the text it is given are untouched: ours stands beside it and answers for itself."""
    path = Path(env["HOME"], ".claude", "settings.json")
    path.parent.mkdir()
    path.write_text(FOREIGN["claude"][1])
    install("claude", setting, env)
    groups = json.loads(path.read_text())["hooks"]["PreToolUse"]
    commands = [handler["command"] for group in groups for handler in group["hooks"]]
    assert commands == [command_of("claude", setting), "dcg"]
    assert not any("updatedInput" in command or "exec --" in command for command in commands)


def test_policies_that_silence_hooks_are_named(setting, env):
    install("claude", setting, env)
    path = Path(env["HOME"], ".claude", "settings.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "disableAllHooks": True}))
    assert any("disableAllHooks" in note for note in status("claude", setting, env).notes)
    install("codex", setting, env)
    assert any("/hooks" in note for note in status("codex", setting, env).notes)
