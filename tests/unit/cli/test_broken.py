"""Whatever is broken here, a command ends with one line that says what, and never with a traceback."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).parents[3]
CODE = f"import sys; sys.path.insert(0, {str(TOP)!r}); from rch.cli.main import main; sys.exit(main())"

COMMANDS = """\
status
status -w -j -m
queue
jobs
logs j-1
wait j-1
fetch j-1
cancel j-1
cancel --all
workers list
workers probe
workers drain css
inventory show
daemon status
daemon logs
daemon stop
config show
config get transfer.git
config validate
config set general.verbose true --user
config init --user
config reset --user --yes
config trust
doctor --no-workers
explain make
hook status
shim status
shellenv
help workers
help exec
""".splitlines()

NOISE = random.Random(5).randbytes(3000)


def _state_is_a_file(shell: Any) -> None:
    shell.state.write_text("x")


def _state_is_noise(shell: Any) -> None:
    (shell.state / "jobs").mkdir(parents=True)
    for name in ("rch.db", "registry.json", "trust.json", "session.json", "lock"):
        (shell.state / name).write_bytes(NOISE)


def _inventory_is_noise(shell: Any) -> None:
    (shell.inventory / "hosts.yml").write_bytes(NOISE)


def _inventory_is_wrong(shell: Any) -> None:
    (shell.inventory / "hosts.yml").write_text("rch_workers: {hosts: {css: {rch_slots: many}}}\n")


def _inventory_is_gone(shell: Any) -> None:
    shutil.rmtree(shell.inventory)


def _user_file(shell: Any) -> Path:
    path: Path = shell.home / ".config/rch/config.toml"
    path.parent.mkdir(parents=True)
    return path


def _user_file_is_noise(shell: Any) -> None:
    _user_file(shell).write_bytes(NOISE)


def _user_file_is_a_directory(shell: Any) -> None:
    _user_file(shell).mkdir()


def _a_socket_that_nobody_answers(shell: Any) -> None:
    (shell.state / "run").mkdir(parents=True)
    (shell.state / "run" / "rchd.sock").write_text("")


BROKEN = [
    _state_is_a_file,
    _state_is_noise,
    _inventory_is_noise,
    _inventory_is_wrong,
    _inventory_is_gone,
    _user_file_is_noise,
    _user_file_is_a_directory,
    _a_socket_that_nobody_answers,
]


class TestACommand:
    @pytest.mark.parametrize("command", COMMANDS)
    @pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__.strip("_"))
    def test_ends_with_a_line_that_names_the_trouble(
        self, shell: Any, broken: Callable[[Any], None], command: str
    ) -> None:
        broken(shell)
        ended = shell(*command.split())
        assert "Traceback" not in ended.err
        assert "error[internal]" not in ended.err
        assert ended.status in (0, 1, 2, 3, 4, 5, 6)
        if ended.status not in (0, 1):
            assert ended.err.startswith("rch: error["), ended.err
            assert ended.err.count("\n") == 1
            assert "; next: " in ended.err or "hosts.yml:" in ended.err or command == "config validate"

    @pytest.mark.parametrize("command", ["status", "jobs", "config show", "doctor --no-workers", "explain make"])
    def test_works_in_a_directory_that_is_gone(self, shell: Any, command: str) -> None:
        gone = shell.cwd / "gone"
        gone.mkdir()
        script = f'cd "$1" && rmdir "$1" && shift && exec {sys.executable} -I -c "$@"'
        ended = subprocess.run(
            ["/bin/sh", "-c", script, "sh", str(gone), CODE, *command.split()],
            capture_output=True, text=True, timeout=60, env=shell.env, check=False,
        )  # fmt: skip
        assert "Traceback" not in ended.stderr
        assert "internal" not in ended.stderr


class TestAnAnswerThatCannotBeWritten:
    """``>/dev/full`` and ``>&-``: the status says that the answer did not arrive."""

    @staticmethod
    def run(shell: Any, redirection: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", "-c", f'exec {sys.executable} -I -c "$@" {redirection}', "sh", CODE, *words],
            capture_output=True, text=True, timeout=60, env=shell.env, cwd=shell.cwd, check=False,
        )  # fmt: skip

    @pytest.mark.parametrize("words", [["config", "show"], ["--help"], ["config", "show", "--json"]])
    def test_because_the_disk_is_full_is_one_line_and_1(self, shell: Any, words: list[str]) -> None:
        ended = self.run(shell, ">/dev/full", *words)
        line = "rch: error[DiskFull] stdout cannot be written (No space left on device); next: df -h\n"
        assert (ended.returncode, ended.stderr) == (1, line)

    @pytest.mark.parametrize("words", [["config", "show"], ["config", "show", "--json"]])
    def test_because_it_is_closed_is_one_line_and_1(self, shell: Any, words: list[str]) -> None:
        ended = self.run(shell, ">&-", *words)
        assert (ended.returncode, ended.stderr) == (
            1,
            "rch: error[OSError] stdout cannot be written (Bad file descriptor)\n",
        )

    def test_matters_only_where_there_is_one(self, shell: Any) -> None:
        ended = self.run(shell, ">&-", "daemon", "start", "--nonsense")
        assert ended.returncode == 2
        assert ended.stderr.startswith("rch: error[UsageError] ")

    def test_and_a_closed_stderr_is_no_trouble(self, shell: Any) -> None:
        ended = self.run(shell, "2>&-", "config", "get", "transfer.git")
        assert (ended.returncode, ended.stdout) == (0, "head\n")

    def test_no_file_is_taken_for_a_descriptor_that_is_closed(self, shell: Any) -> None:
        """The first file that a process opens gets the lowest number that is free: it must not be stdout's."""
        _user_file(shell).write_text("[general]\nverbose = false\n")
        before = (shell.home / ".config/rch/config.toml").read_bytes()
        self.run(shell, "0>&- >&- 2>&-", "config", "set", "general.verbose", "true", "--user")
        after = (shell.home / ".config/rch/config.toml").read_bytes()
        assert after == before.replace(b"false", b"true")
        assert os.listdir(shell.home / ".config/rch") == ["config.toml"]


class TestWhatIsSaid:
    def test_is_more_by_flag_variable_or_key_and_a_flag_or_quiet_beats_them(self, shell: Any) -> None:
        def more(*words: str, **env: str) -> bool:
            return "default" in shell(*words, "config", "get", "transfer.git", **env).err

        assert not more()
        assert more("-v")
        assert more(RCH_VERBOSE="1")
        assert not more(RCH_VERBOSE="1", RCH_QUIET="1")
        assert more("-v", RCH_QUIET="1")
        assert not more("-q", RCH_VERBOSE="1")
        _user_file(shell).write_text("[general]\nverbose = true\n")
        assert more()
        assert not more("-q")
        assert not more(RCH_QUIET="1")

    def test_is_nothing_but_errors_by_variable_too(self, shell: Any) -> None:
        assert "rchd is not running" in shell("status").err
        assert shell("status", RCH_QUIET="1").err == ""
