"""What holds for every command: flags anywhere, exit statuses, one line for an error, help, the page."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rch import __version__
from rch.cli.document import commands, page
from rch.client_options import USAGE

TOP = Path(__file__).parents[3]
COMMANDS = dict(commands())


class TestTheFlags:
    @pytest.mark.parametrize("words", [["--json", "status"], ["status", "--json"]])
    def test_json_stands_before_and_after_the_subcommand(self, shell: Any, words: list[str]) -> None:
        assert shell(*words).json["running"] is False

    @pytest.mark.parametrize(
        "words",
        [
            ["--json", "config", "show"],
            ["config", "--json", "show"],
            ["config", "show", "--json"],
        ],
    )
    def test_json_stands_at_every_depth(self, shell: Any, words: list[str]) -> None:
        assert isinstance(shell(*words).json, list)

    def test_quiet_silences_talk_and_no_error(self, shell: Any) -> None:
        assert shell("-q", "status").err == ""
        assert shell("status", "-q").err == ""
        assert "error" in shell("jobs", "-q").err

    @pytest.mark.parametrize("words", [["-q", "-v", "status"], ["-q", "status", "-v"], ["status", "-q", "-v"]])
    def test_quiet_and_verbose_exclude_one_another(self, shell: Any, words: list[str]) -> None:
        assert shell(*words).status == 2

    @pytest.mark.parametrize("path", sorted(COMMANDS))
    def test_are_taken_by_every_command_and_every_command_has_help(self, path: str) -> None:
        text = COMMANDS[path]
        for flag in ("-v, --verbose", "-q, --quiet", "--json", "-h, --help"):
            assert flag in text
        assert len(text.split("\n\n")[1].strip()) > 10, "a sentence says what it does"


class TestAMistake:
    @pytest.mark.parametrize(
        "words",
        [
            ["nonsense"],
            ["status", "--nonsense"],
            ["workers", "nonsense"],
            ["wait"],
            ["jobs", "--limit", "many"],
            ["help", "x"],
        ],
    )
    def test_on_the_command_line_is_exit_2_with_one_line(self, shell: Any, words: list[str]) -> None:
        ended = shell(*words)
        assert ended.status == 2
        assert ended.out == ""
        assert ended.err.startswith("rch: error[UsageError] ")
        assert ended.err.count("\n") == 1

    def test_in_a_name_names_the_nearest(self, shell: Any) -> None:
        assert "Did you mean status?" in shell("staus").err
        assert "Did you mean probe?" in shell("workers", "prob").err

    @pytest.mark.parametrize(
        "words", [["status"], ["jobs"], ["daemon", "status"], ["explain", "make"], ["config", "show"]]
    )
    def test_in_a_configuration_file_is_exit_2_with_file_and_line(self, shell: Any, words: list[str]) -> None:
        file = shell.cwd / ".rch/config.toml"
        file.parent.mkdir()
        file.write_text("[transfer]\ngitt = 'x'\n")
        ended = shell(*words)
        assert ended.status == 2
        assert f"{file}:2: unknown key transfer.gitt; did you mean transfer.git?" in ended.err

    def test_in_a_variable_is_exit_2(self, shell: Any) -> None:
        assert shell("status", RCH_COMPRESSION="99").status == 2

    def test_of_ours_is_one_line_and_no_traceback(self, shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        import rch.cli.status as module

        monkeypatch.setattr(module, "api", lambda: 1 / 0)
        ended = shell("status")
        assert ended.status == 1
        assert ended.err.startswith("rch: error[internal] ZeroDivisionError")
        assert "Traceback" not in ended.err
        assert "Traceback" in shell("status", RCH_VERBOSE="1").err


class TestAsAProcess:
    def test_prints_its_version(self, shell: Any) -> None:
        ended = shell.process("--version")
        assert (ended.status, ended.out) == (0, f"rch {__version__}\n")

    def test_ends_with_the_status_of_the_command(self, shell: Any, rchd: Any, make_job: Any) -> None:
        rchd.jobs = [make_job(state="failed", exit_status=42)]
        assert shell.process("wait", "j-1").status == 42
        assert shell.process("status").status == 0

    def test_dies_quietly_when_its_reader_goes(self, shell: Any, rchd: Any, make_job: Any) -> None:
        rchd.jobs = [make_job(f"j-{i}") for i in range(2000)]
        code = f"import sys; sys.path.insert(0, {str(TOP)!r}); from rch.cli.main import main; sys.exit(main())"
        with subprocess.Popen(
            [sys.executable, "-I", "-c", code, "jobs", "--json", "-n", "1000"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=shell.env,
            cwd=shell.cwd,
        ) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            child.stdout.read(10)
            child.stdout.close()
            errors = child.stderr.read()
        assert (child.returncode, errors) == (141, b"")

    def test_ends_by_ctrl_c_with_130(self, shell: Any, rchd: Any, make_job: Any) -> None:
        import signal

        rchd.jobs = [make_job(state="running")]
        code = f"import sys; sys.path.insert(0, {str(TOP)!r}); from rch.cli.main import main; sys.exit(main())"
        with subprocess.Popen(
            [sys.executable, "-I", "-c", code, "wait", "j-1"], stderr=subprocess.PIPE, env=shell.env, cwd=shell.cwd
        ) as child:
            until = time.monotonic() + 60
            while not any("j-1" in path for _, path, _ in rchd.asked):
                assert time.monotonic() < until
                time.sleep(0.02)
            child.send_signal(signal.SIGINT)
            assert child.stderr is not None
            errors = child.stderr.read()
        assert (child.returncode, errors) == (130, b"")

    def test_completes_words_for_a_shell(self, shell: Any) -> None:
        ended = shell.process(_RCH_COMPLETE="bash_complete", COMP_WORDS="rch wor", COMP_CWORD="1")
        assert "workers" in ended.out

    def test_draws_tables_on_a_terminal_and_obeys_no_color(self, shell: Any, rchd: Any, make_worker: Any) -> None:
        rchd.workers = [make_worker()]
        coloured = _on_a_terminal(shell, ["workers", "list"], {"TERM": "xterm"})
        plain = _on_a_terminal(shell, ["workers", "list"], {"TERM": "xterm", "NO_COLOR": "1"})
        assert "\x1b[32mhealthy" in coloured
        assert "healthy" in plain
        assert "\x1b[3" not in plain
        assert "\x1b" not in shell.process("workers", "list").out

    def test_starts_without_importing_what_it_does_not_need(self, shell: Any) -> None:
        code = (
            f"import sys; sys.path.insert(0, {str(TOP)!r}); from rch.cli.main import main; main(['--version']);"
            "print(sorted({m.partition('.')[0] for m in sys.modules} & "
            "{'pydantic', 'yaml', 'rich', 'tomlkit', 'ruamel', 'fabric', 'paramiko', 'aiohttp', 'tree_sitter', 'ansible'}))"
        )
        ended = subprocess.run(
            [sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60, env=shell.env, check=False
        )
        assert ended.stdout.splitlines()[-1] == "[]", ended.stderr


class TestThePage:
    def test_is_current(self) -> None:
        assert (TOP / "docs/cli.md").read_text() == page(), "run: python -m rch.cli.document"

    @pytest.mark.parametrize("path", sorted(COMMANDS))
    def test_has_the_help_of_every_command_as_it_is_printed(self, shell: Any, path: str) -> None:
        printed = shell(*path.split()[1:], "--help", COLUMNS="100").out
        assert f"## {path}\n" in page()
        assert printed.split() == COMMANDS[path].split()

    def test_help_takes_the_name_of_a_command(self, shell: Any) -> None:
        assert shell("help", "workers", "probe").out.split() == shell("workers", "probe", "--help").out.split()
        assert "Commands:" in shell("help").out
        assert shell("help", "exec").out == USAGE
        assert USAGE in page()

    @pytest.mark.parametrize(
        "name",
        [
            "status",
            "queue",
            "jobs",
            "logs",
            "cancel",
            "fetch",
            "wait",
            "workers",
            "inventory",
            "daemon",
            "config",
            "doctor",
            "explain",
            "hook",
            "shim",
            "shellenv",
            "help",
        ],
    )
    def test_has_each_promised_command(self, name: str) -> None:
        assert f"rch {name}" in COMMANDS


def _on_a_terminal(shell: Any, words: list[str], env: dict[str, str]) -> str:
    code = f"import sys; sys.path.insert(0, {str(TOP)!r}); from rch.cli.main import main; sys.exit(main())"
    mine, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-I", "-c", code, *words], stdout=theirs, env={**shell.env, **env}, cwd=shell.cwd
    )
    os.close(theirs)
    data = b""
    while select.select([mine], [], [], 60)[0]:
        try:
            part = os.read(mine, 65536)
        except OSError:  # Linux says EIO when the other end has closed
            break
        if not part:
            break
        data += part
    os.close(mine)
    child.wait(60)
    return data.decode()
