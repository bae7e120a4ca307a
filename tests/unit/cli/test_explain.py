"""``rch explain`` and ``rch shellenv``."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rch.cli.shellenv import shell_line, shell_of


class TestExplain:
    def test_of_a_line_has_the_documented_object(self, shell: Any) -> None:
        line = "cd app && cargo build 2>&1 | tail; make deploy"
        found = shell("explain", "--json", line).json
        assert {"command", "decision", "rewritten", "segments"} <= set(found)
        assert (found["command"], found["decision"]) == (line, "offload")
        assert found["rewritten"] == "cd app && rch exec -- cargo build 2>&1 | tail; make deploy"
        build = next(one for one in found["segments"] if one["decision"] == "offload")
        assert {"start", "end", "text", "kind", "decision", "confidence", "tier", "reason"} <= set(build)
        assert line[build["start"] : build["end"]] == build["text"] == "cargo build"

    def test_of_words_is_of_one_command_whatever_they_hold(self, shell: Any) -> None:
        found = shell("explain", "--json", "cargo", "build", "--features", "a b; rm").json
        assert found["command"] == "cargo build --features 'a b; rm'"
        assert shell("explain", "--json", "--", "make", "-v").json["command"] == "make -v"

    def test_leaves_the_flags_of_the_command_alone(self, shell: Any) -> None:
        assert (
            shell("explain", "--json", "cargo", "build", "-v", "-q", "--json").json["command"]
            == "cargo build -v -q --json"
        )

    def test_by_batch_gives_one_object_a_line(self, shell: Any) -> None:
        ended = shell("explain", "--batch", "--json", stdin="ls\ncargo test\n")
        assert [json.loads(line)["decision"] for line in ended.out.splitlines()] == ["local", "offload"]

    def test_obeys_configuration_and_switches(self, shell: Any) -> None:
        file = shell.cwd / ".rch/config.toml"
        file.parent.mkdir()
        file.write_text("[interception]\nexclude = ['cargo doc']\n")
        excluded = shell("explain", "--json", "cargo doc").json["segments"][0]
        assert (excluded["reason"], excluded["tier"]) == ("excluded", 3)
        assert (
            shell("explain", "--json", "cargo build", RCH_LOCAL_ONLY="1").json["segments"][0]["reason"] == "local-only"
        )
        file.write_text("[project]\nenabled = false\n")
        assert shell("explain", "--json", "cargo build").json["segments"][0]["reason"] == "disabled"

    def test_says_it_to_people_with_the_rewritten_line(self, shell: Any) -> None:
        out = shell("explain", "cargo build | tail").out
        assert "rewritten: rch exec -- cargo build | tail" in out

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("cargo build", ""),
            ("CARGO_TARGET_DIR=/tmp/x cargo build", "output-outside-roots"),
            ("time env CARGO_TARGET_DIR=/tmp/x cargo build", "output-outside-roots"),
            ("CARGO_TARGET_DIR=out cargo build", ""),
            ("cd src && cargo build -p nobody", "preflight-missing-dependency"),
            ("cd $X && cargo build -p nobody", ""),
            ("cd /usr && make", "path-not-bindable"),
            ("git status", ""),
        ],
    )
    def test_ic_09_tells_what_rch_exec_would_say_of_the_project(self, shell: Any, line: str, reason: str) -> None:
        (shell.cwd / "src").mkdir()
        (shell.cwd / "src/main.rs").write_text("fn main() {}\n")
        (shell.cwd / "Cargo.toml").write_text('[package]\nname = "p"\nversion = "1.0.0"\n')
        found = shell("explain", "--json", line).json["segments"][-1]
        assert (found["reason"] or found["would_stay"]) == (reason or found["reason"])
        assert (reason in found["detail"]) or bool(found["detail"]) is bool(reason or found["reason"])
        assert (f"would be local  {reason}: " in shell("explain", line).out) is bool(reason)
        ended = shell("explain", "--batch", "--json", stdin=f"{line}\n")
        assert json.loads(ended.out)["segments"][-1]["would_stay"] == ""

    def test_ic_09_reads_the_callers_environment_as_rch_exec_does(self, shell: Any) -> None:
        (shell.cwd / "Cargo.toml").write_text('[package]\nname = "p"\nversion = "1.0.0"\n')
        (shell.cwd / "src").mkdir()
        (shell.cwd / "src/lib.rs").write_text("")
        found = shell("explain", "--json", "cargo check", CARGO_TARGET_DIR="/tmp/x").json["segments"][0]
        assert found["would_stay"] == "output-outside-roots"

    @pytest.mark.parametrize("words", [[], ["--batch", "x"]])
    def test_refuses_what_is_unclear(self, shell: Any, words: list[str]) -> None:
        assert shell("explain", *words).status == 2


class TestShellenv:
    @pytest.mark.parametrize("shell_name", ["sh", "bash"])
    def test_puts_the_shims_first_once(self, tmp_path: Path, shell_name: str) -> None:
        directory = str(tmp_path / "with space" / "shims")
        line = shell_line("sh", directory)
        ended = subprocess.run(
            [shell_name, "-c", f'PATH=/usr/bin:/bin; {line}; {line}; echo "$PATH"'],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert ended.stdout == f"{directory}:/usr/bin:/bin\n"

    def test_knows_the_dialect_of_the_login_shell(self) -> None:
        assert [shell_of(p) for p in ("/bin/zsh", "/usr/bin/fish", "/bin/tcsh", "")] == ["sh", "fish", "csh", "sh"]

    def test_prints_one_line(self, shell: Any) -> None:
        ended = shell("shellenv", SHELL="/usr/bin/fish")
        assert ended.status == 0
        assert ended.out.startswith("contains -- ")
        assert "rch shim install" in ended.err
