"""Edits keep comments and order, and write nothing that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from rch.config.edit import set_aside, set_value, unset_value, value_from_text
from rch.config.layers import Layer
from rch.errors import ConfigError, UsageError
from rch.paths import AbsPath

TEXT = """\
# mine
[workers]   # who
blocked = ["yto"]  # slow

[execution]
timeout_sec = 10
"""


@pytest.fixture
def file(tmp_path: Path) -> AbsPath:
    path = tmp_path / "config.toml"
    path.write_text(TEXT)
    return AbsPath(str(path))


class TestATypedValue:
    @pytest.mark.parametrize(
        ("key", "text", "value"),
        [
            ("execution.timeout_sec", "7200", 7200),
            ("workers.preferred", "css", "css"),
            ("workers.allowed", "css,yto", ["css", "yto"]),
            ("workers.allowed", '["css"]', ["css"]),
            ("workers.allowed", "css", ["css"]),
            ("project.id", "42", "42"),
            ("project.name", "My App, really", "My App, really"),
            ("general.enabled", "false", False),
            ("workers.min_speed_score", "50", 50),
            ("transfer.compression_level", "auto", "auto"),
            ("transfer.compression_level", "3", 3),
            ("execution.env.CC", "clang", "clang"),
            ("stages.fmt.command", '["cargo", "fmt"]', ["cargo", "fmt"]),
            ("stages.fmt.command", "cargo fmt", "cargo fmt"),
            ("hooks.pre_transfer", "", ""),
        ],
    )
    def test_is_toml_else_text_else_names(self, key: str, text: str, value: object) -> None:
        assert value_from_text(key, text)[1] == value

    @pytest.mark.parametrize(
        ("key", "text"),
        [
            ("execution.timeout_sec", "soon"),
            ("transfer.git", "all"),
            ("general.enabled", "yes"),
            ("transfer.gitt", "head"),
            ("execution.timeout_sec", "1\n[general]\nenabled = false"),
        ],
    )
    def test_that_the_key_cannot_have_is_refused(self, key: str, text: str) -> None:
        with pytest.raises(ConfigError):
            value_from_text(key, text)


class TestSetting:
    def test_keeps_comments_and_order(self, file: AbsPath) -> None:
        set_value(file, Layer.USER, ("execution", "timeout_sec"), 20)
        set_value(file, Layer.USER, ("execution", "env", "CC"), "clang")
        text = Path(file).read_text()
        assert text.startswith(
            '# mine\n[workers]   # who\nblocked = ["yto"]  # slow\n\n[execution]\ntimeout_sec = 20\n'
        )
        assert 'CC = "clang"' in text

    def test_writes_nothing_when_the_result_would_be_wrong(self, file: AbsPath) -> None:
        for path, value in ((("execution", "timeout_sec"), 0), (("project", "id"), "x"), (("nonsense",), 1)):
            with pytest.raises(ConfigError):
                set_value(file, Layer.USER, path, value)
        Path(file).write_text(TEXT + "nonsense = 1\n")
        with pytest.raises(ConfigError, match="nonsense"):
            set_value(file, Layer.USER, ("execution", "timeout_sec"), 20)
        assert Path(file).read_text() == TEXT + "nonsense = 1\n"

    def test_makes_the_file_and_its_directory(self, tmp_path: Path) -> None:
        file = AbsPath(str(tmp_path / "a/b/config.toml"))
        set_value(file, Layer.PROJECT, ("stages", "my stage", "timeout"), 5)
        assert Path(file).read_text() == '[stages."my stage"]\ntimeout = 5\n'

    def test_follows_a_link_and_keeps_the_mode(self, file: AbsPath, tmp_path: Path) -> None:
        Path(file).chmod(0o600)
        link = tmp_path / "link.toml"
        link.symlink_to(file)
        set_value(AbsPath(str(link)), Layer.USER, ("execution", "timeout_sec"), 20)
        assert link.is_symlink()
        assert "timeout_sec = 20" in Path(file).read_text()
        assert Path(file).stat().st_mode & 0o777 == 0o600
        assert sorted(p.name for p in tmp_path.iterdir()) == ["config.toml", "link.toml"]

    def test_refuses_a_file_that_does_not_parse(self, file: AbsPath) -> None:
        Path(file).write_text("a = [")
        with pytest.raises(ConfigError):
            set_value(file, Layer.USER, ("execution", "timeout_sec"), 20)


class TestTakingBack:
    def test_takes_one_key_out(self, file: AbsPath) -> None:
        assert unset_value(file, Layer.USER, ("workers", "blocked"))
        assert not unset_value(file, Layer.USER, ("workers", "blocked"))
        assert not unset_value(file, Layer.USER, ("gate", "scanners"))
        assert "timeout_sec = 10" in Path(file).read_text()

    def test_sets_the_file_aside(self, file: AbsPath) -> None:
        backup = set_aside(file)
        assert Path(backup).read_text() == TEXT
        with pytest.raises(UsageError):
            set_aside(file)
