"""A small project built on a worker and looked at here: the proof that a fleet works, end to end."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rch.fleet.model import Worker
from rch.fleet.toolchains import identities

BUILD_S = 300.0
"""Seconds for the canary, connection and first transfer of a toolchain's registry included."""

_SWITCHES = ("RCH_ENABLED", "RCH_BYPASS", "RCH_LOCAL_ONLY", "RCH_DRY_RUN", "RCH_WORKER", "RCH_WORKERS", "RCH_TAG")

_RUST = {
    "Cargo.toml": '[package]\nname = "canary"\nversion = "0.1.0"\nedition = "2021"\nbuild = "build.rs"\n',
    "build.rs": 'fn main() {\n    println!("cargo:rustc-env=CANARY=sings");\n}\n',
    "src/lib.rs": 'pub fn song() -> &\'static str {\n    env!("CANARY")\n}\n',
    "src/main.rs": 'fn main() {\n    println!("the canary {}", canary::song());\n}\n',
    ".gitignore": "/target\n",
}
_C = {
    "Makefile": "canary: main.o song.o\n\t$(CC) -o $@ main.o song.o\n%.o: %.c song.h\n\t$(CC) -c -o $@ $<\n",
    "song.h": "const char *song(void);\n",
    "song.c": '#include "song.h"\nconst char *song(void) { return "sings"; }\n',
    "main.c": '#include <stdio.h>\n#include "song.h"\nint main(void) { return printf("%s\\n", song()) < 0; }\n',
}


@dataclass(frozen=True)
class Project:
    """One way to sing: needs *tool* the same on both sides, built by *command*, leaves *product*."""

    tool: str
    files: Mapping[str, str]
    command: tuple[str, ...]
    product: str


PROJECTS = (
    Project("rust", _RUST, ("cargo", "build"), "target/debug/canary"),
    Project("c", _C, ("make",), "canary"),
)


@dataclass(frozen=True)
class Song:
    """How it went. ok: built there, runs here, and the same command here has nothing to do; shown: for people."""

    worker: str
    ok: bool
    shown: str
    seconds: float = 0.0

    def line(self) -> str:
        return f"Canary: {self.shown}" + (" Ready." if self.ok else "")


def candidates(workers: Sequence[Worker], ours: Mapping[str, str]) -> list[tuple[Worker, Project]]:
    """Pairs that can work, best first: the toolchain is the same there as here (*ours*: tool -> identity)."""
    ranked = sorted(workers, key=lambda one: (-one.declared.priority, one.name))
    return [
        (worker, project)
        for project in PROJECTS
        for worker in ranked
        if ours.get(project.tool) in identities(worker.observed.facts).get(project.tool, frozenset())
    ]


def sing(worker: str, project: Project, place: str, env: Mapping[str, str]) -> Song:
    """Build *project* on *worker* in a directory below *place*, then look here; never raises for a build that fails."""
    directory = tempfile.mkdtemp(prefix="canary-", dir=place)
    try:
        return _sing(worker, project, directory, {k: v for k, v in env.items() if k not in _SWITCHES})
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _sing(worker: str, project: Project, directory: str, env: Mapping[str, str]) -> Song:
    for name, text in project.files.items():
        path = os.path.join(directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    told = " ".join(project.command)
    rch = [sys.executable, "-m", "rch", "exec", "--worker", worker, "--require-remote", "--", *project.command]
    started = time.monotonic()
    there = run(rch, directory, env)
    seconds = time.monotonic() - started
    if there.returncode != 0:
        why = last_line(there.stderr) or "without a word"
        return Song(worker, False, f"{told} on {worker} failed ({there.returncode}): {why}", seconds)
    here = {**env, "RCH_BYPASS": "1"}
    ran = run([os.path.join(directory, project.product)], directory, here)
    if ran.returncode != 0 or "sings" not in ran.stdout:
        return Song(worker, False, f"{told} on {worker} ended well, but its product does not run here", seconds)
    fresh, finding = _fresh(project, directory, here)
    return Song(worker, fresh, f"{told} on {worker} … {seconds:.1f} s, {finding}", seconds)


def _fresh(project: Project, directory: str, env: Mapping[str, str]) -> tuple[bool, str]:
    """Whether the same command here finds nothing to do, and in which words the tool says so."""
    if project.tool == "rust":
        again = run([*project.command, "--verbose"], directory, env)
        states = re.findall(r"^\s*(Fresh|Compiling|Dirty) ", again.stderr, re.MULTILINE)
        fresh = states.count("Fresh")
        total = len([state for state in states if state != "Dirty"])
        return fresh == total > 0, f"{fresh} of {total} units Fresh here."
    again = run([*project.command, "-q"], directory, env)
    return again.returncode == 0, "nothing to do here." if again.returncode == 0 else "make here would build again."


def run(
    words: Sequence[str], directory: str, env: Mapping[str, str], limit_s: float = BUILD_S
) -> subprocess.CompletedProcess[str]:
    """Run a program with nothing on stdin; one that does not end or start has 124 or 127 and says so on stderr."""
    try:
        return subprocess.run(
            words,
            cwd=directory,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 124, "", f"no end after {limit_s:.0f} s")
    except OSError as error:
        return subprocess.CompletedProcess(words, 127, "", f"{words[0]}: {error.strerror}")


def last_line(text: str) -> str:
    """The last line of *text* that is not empty, shortened; "" where there is none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
