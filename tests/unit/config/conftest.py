"""A home, a project and a system file of one's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rch.config.merged import Config, load_config


class Desk:
    """Writes configuration files below one directory and loads what they come to."""

    def __init__(self, top: Path) -> None:
        self.home = top / "home"
        self.project = top / "work" / "app"
        self.system_file = top / "etc" / "config.toml"
        self.user_file = self.home / ".config/rch/config.toml"
        self.project_file = self.project / ".rch/config.toml"
        self.state = self.home / ".local/state/rch"
        self.env: dict[str, str] = {"HOME": str(self.home)}
        self.project.mkdir(parents=True)
        self.home.mkdir()

    def system(self, text: str) -> None:
        self._write(self.system_file, text)

    def user(self, text: str) -> None:
        self._write(self.user_file, text)

    def write_project(self, text: str) -> None:
        self._write(self.project_file, text)

    def trust(self) -> None:
        from rch.config.trust import trust
        from rch.worker.protocol import hash_bytes

        trust(str(self.state / "trust.json"), str(self.project_file), hash_bytes(self.project_file.read_bytes()))

    def load(self, flags: Mapping[str, Any] | None = None, cwd: Path | None = None, **env: str) -> Config:
        return load_config(
            str(cwd or self.project), {**self.env, **env}, flags=flags, system_file=str(self.system_file)
        )

    def _write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".new")
        beside.write_text(text)
        os.replace(beside, path)  # a new inode each time, as editors do


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)
