"""Cargo's aliases, as cargo itself would find them in a directory."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from rch.project import cargo_aliases


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    (path / ".cargo").mkdir(parents=True)
    return path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class TestTheAliasesOfADirectory:
    def test_are_those_of_every_file_up_the_tree_the_nearest_first(self, tmp_path, home):
        write(home / ".cargo" / "config.toml", '[alias]\nlint = "clippy"\nxt = "test"\n')
        write(tmp_path / "p" / ".cargo" / "config.toml", '[alias]\nxt = ["run", "-p", "x t", "--"]\n')
        write(tmp_path / "p" / "sub" / ".cargo" / "config", '[alias]\nb2 = "build --release"\n')
        found = cargo_aliases(str(tmp_path / "p" / "sub"), {"HOME": str(home)})
        assert found == {"lint": ("clippy",), "xt": ("run", "-p", "x t", "--"), "b2": ("build", "--release")}

    def test_of_cargo_home_are_where_the_variable_says(self, tmp_path, home):
        write(tmp_path / "ch" / "config.toml", '[alias]\na = "build"\n')
        assert cargo_aliases("/", {"HOME": str(home), "CARGO_HOME": str(tmp_path / "ch")}) == {"a": ("build",)}

    def test_that_a_variable_sets_are_cargos_own_business(self, tmp_path, home):
        write(home / ".cargo" / "config.toml", '[alias]\nmy-x = "build"\n')
        assert cargo_aliases("/", {"HOME": str(home), "CARGO_ALIAS_MY_X": "clean"}) == {}

    @pytest.mark.parametrize("text", ["[", "alias = 1", "[alias]\na = 1", "[alias]\na = [1]", "\xff"])
    def test_of_a_file_that_is_odd_are_none(self, home, text):
        (home / ".cargo" / "config.toml").write_bytes(text.encode("latin-1"))
        assert cargo_aliases("/", {"HOME": str(home)}) == {}

    def test_are_cargos(self, tmp_path):
        """Cargo lists what it would expand."""
        home = os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo"))
        write(tmp_path / ".cargo" / "config.toml", '[alias]\nzz = "build --release"\n')
        done = subprocess.run(
            ["cargo", "--list"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            pytest.skip("cargo does not run here; the CI machine has it")
        assert "alias: build --release" in done.stdout
        assert cargo_aliases(str(tmp_path), {"CARGO_HOME": home})["zz"] == ("build", "--release")
