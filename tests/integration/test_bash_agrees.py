"""bash itself is asked: a rewritten line runs the same commands, in front of which rch stands where it should.

Every golden line with a build is run twice in an empty directory whose PATH holds nothing but recorders: as it is, and
rewritten. Both runs must record the same calls once ``rch exec --`` is taken out again, and the second must have it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "intercept"))
from golden_lines import Golden, load

from rch.intercept import decide
from rch.intercept.decision import Policy

_PREFIX = "rch <exec> <--> <"
_REAL = {
    "bash": "bash",
    "sh": "sh",
    "zsh": "bash",
    "env": "env",
    "timeout": "timeout",
    "nice": "nice",
    "nohup": "nohup",
}
# One write per call, every word in brackets, so that words cannot run together.
_RECORDER = r"""#!/bin/sh
call="CALL ${0##*/}"
for word; do call="$call <$word>"; done
printf '%s\n' "$call" >> "$CALLS"
"""
# Programs called by a path are not found among the recorders, or would really run.
_ABSOLUTE = re.compile(
    r"(?:^|[\s;&|(])(?:/usr|/bin|/opt|~/|\"?\$\{?HOME\}?\"?/|\.{1,2}/(?:gradlew|mvnw|node_)|\.venv/|node_modules/)"
)
# What goes on behind the shell's back has not always called anybody yet when the shell ends, or is killed before.
_UNWAITED = re.compile(r"&\s*\)|kill \$!")
_LINES = [
    golden
    for golden in load()
    if golden.offloads and not _ABSOLUTE.search(golden.line) and not _UNWAITED.search(golden.line)
]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a recorder for every program that the golden lines call, and the real wrappers."""
    folder = tmp_path_factory.mktemp("programs")
    recorder = folder / ".recorder"
    recorder.write_text(_RECORDER)
    recorder.chmod(0o755)
    names = {"rch"}
    for golden in _LINES:
        names.update(re.findall(r"[A-Za-z_][\w.+-]*", golden.line))
    for name in names - set(_REAL):
        os.link(recorder, folder / name)
    for name, real in _REAL.items():
        found = shutil.which(real)
        assert found, f"{real} is needed"
        (folder / name).symlink_to(found)
    return folder


def _calls(line: str, programs: Path, place: Path) -> list[str]:
    place.mkdir()
    for name in ("app", "build", "x", "y", "sub", "a", "b", "src", "crates/core", "crates/cli", "home", "bin"):
        (place / name).mkdir(parents=True)
    for name in ("Makefile", "Cargo.toml", "build.ninja", "a.c", "input.txt", "tests.txt", "in.txt", ".env", "env.sh"):
        (place / name).write_text("one\n" if name == "tests.txt" else "")
    calls = place / "calls"
    calls.write_text("")
    environment = {"PATH": str(programs), "CALLS": str(calls), "HOME": str(place / "home"), "dir": "sub", "p": "q"}
    bash = shutil.which("bash")
    assert bash
    subprocess.run(
        [bash, "--norc", "--noprofile", "-c", f"{line}\nwait"],
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    recorded = re.split(r"^CALL ", calls.read_text("utf-8", "replace"), flags=re.MULTILINE)
    return sorted(recorded)  # the order of the two sides of a pipe is nobody's


@pytest.mark.parametrize("golden", _LINES, ids=[f"{g.theme}: {g.line}" for g in _LINES])
def test_ic_02_bash_runs_the_same_commands(golden: Golden, programs: Path, tmp_path: Path) -> None:
    policy = Policy(toolchains=dict.fromkeys(golden.toolchains, True))
    rewritten = decide(golden.line, "/home/me/app", policy).rewritten
    before = _calls(golden.line, programs, tmp_path / "before")
    after = _calls(rewritten, programs, tmp_path / "after")
    assert sorted(_direct(call).replace(str(tmp_path / "after"), "P") for call in after) == sorted(
        call.replace(str(tmp_path / "before"), "P") for call in before
    )


def _direct(call: str) -> str:
    """The call that rch was asked to make; text that only passes through a recorder loses the insertion too."""
    if call.startswith(_PREFIX):
        program, _, rest = call[len(_PREFIX) :].partition(">")
        return program + rest
    return call.replace("rch exec -- ", "").replace("<rch> <exec> <--> ", "")


def test_the_runs_reach_their_builds(programs: Path, tmp_path: Path) -> None:
    """So that the comparison above is not one of empty lists."""
    reached = 0
    for at, golden in enumerate(_LINES[:120]):
        rewritten = decide(golden.line, "/home/me/app", Policy()).rewritten
        reached += any(call.startswith(_PREFIX) for call in _calls(rewritten, programs, tmp_path / str(at)))
    assert reached > 90
