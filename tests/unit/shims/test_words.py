"""What a shim tells from the words alone."""

from __future__ import annotations

import os
import subprocess

import pytest

from rch.intercept import classify_argv
from rch.intercept.decision import Policy, Verdict
from rch.shims.judge import JUDGES, PROGRAMS
from rch.toolchains import TOOLCHAINS, toolchain_of

POLICY = Policy(toolchains={tool.name: True for tool in TOOLCHAINS})
NAMES = {program: name for name, programs in PROGRAMS.items() for program in programs}


def simple_commands() -> list[tuple[str, ...]]:
    """Every argv of the toolchains' examples and of the golden lines that a shim could be given."""
    import sys
    from pathlib import Path

    sys.path.append(str(Path(__file__).parents[1] / "intercept"))
    from golden_lines import load

    from rch.intercept import decide

    lines = [example.command for tool in TOOLCHAINS for example in tool.examples] + [golden.line for golden in load()]
    found: dict[tuple[str, ...], None] = {}
    for line in lines:
        for segment in decide(line, "/home/me/app", POLICY).segments:
            if segment.argv and os.path.basename(segment.argv[0]) in NAMES:
                found[segment.argv] = None
    return list(found)


COMMANDS = simple_commands()


def judged(commands: list[tuple[str, ...]], shell: str) -> list[str]:
    """``_rch_go`` after the judging lines of each command's shim; one process per tool."""
    answers = {}
    for name in {NAMES[os.path.basename(c[0])] for c in commands}:
        mine = [c for c in commands if NAMES[os.path.basename(c[0])] == name]
        script = "judge() {\n" + JUDGES[name] + "\necho $_rch_go\n}\n"
        quoted = "\n".join("judge " + " ".join("'" + w.replace("'", "'\\''") + "'" for w in c[1:]) for c in mine)
        done = subprocess.run(
            [*shell.split(), "-s"], input=script + quoted, capture_output=True, text=True, timeout=60, check=True
        )
        answers.update(zip(mine, done.stdout.split(), strict=True))
    return [answers[c] for c in commands]


@pytest.mark.parametrize("shell", ["dash", "bash --posix"])
class TestTheWords:
    def test_ic_09_nothing_that_would_be_offloaded_is_kept_here(self, shell):
        lost = [
            command
            for command, go in zip(COMMANDS, judged(COMMANDS, shell), strict=True)
            if go == "here" and classify_argv(command, "/home/me/app", POLICY).verdict is Verdict.OFFLOAD
        ]
        assert not lost

    def test_ic_06_most_commands_that_are_no_build_ask_nobody(self, shell):
        stays = [c for c in COMMANDS if classify_argv(c, "/home/me/app", POLICY).verdict is Verdict.LOCAL]
        asking = [c for c, go in zip(stays, judged(stays, shell), strict=True) if go == "ask"]
        assert len(stays) > 150
        # What is left needs a table of options to tell: odd targets, unknown options, outputs elsewhere.
        assert len(asking) < 0.5 * len(stays), asking


class TestTheTableOfPrograms:
    def test_has_the_toolchain_that_judges_each(self):
        for program, name in NAMES.items():
            tool = toolchain_of(program)
            assert tool is not None, program
            assert tool.name == name, program

    def test_has_every_toolchain(self):
        assert set(PROGRAMS) == set(JUDGES) == {tool.name for tool in TOOLCHAINS}
