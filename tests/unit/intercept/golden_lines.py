"""The golden set: command lines with their expected segments marked in the line itself.

    «kind|words»    offloaded in transparent mode;  «!kind|words» in strict mode too
    «-reason|words» local for that reason;          every other simple command is local as not-a-build

A file has ``why`` (required), ``lines`` (one per line) and ``texts`` (several lines each), and ``toolchains`` that it
switches on. An unknown key fails the load.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

FOLDER = Path(__file__).parent / "golden"
_MARK = re.compile(r"«([!-]?)([\w.-]+)\|([^»]*)»", re.DOTALL)


@dataclass(frozen=True)
class Golden:
    """One line. offloads: (start, end) -> kind; strict: those of them that strict offloads; locals: -> reason."""

    theme: str
    line: str
    offloads: dict[tuple[int, int], str]
    strict: set[tuple[int, int]]
    locals: dict[tuple[int, int], str]
    toolchains: tuple[str, ...]


def _parse(theme: str, marked: str, toolchains: tuple[str, ...]) -> Golden:
    offloads: dict[tuple[int, int], str] = {}
    strict: set[tuple[int, int]] = set()
    stays: dict[tuple[int, int], str] = {}
    line = ""
    at = 0
    for mark in _MARK.finditer(marked):
        line += marked[at : mark.start()]
        words = mark[3]
        span = (len(line.encode()), len((line + words).encode()))
        if mark[1] == "-":
            stays[span] = mark[2]
        else:
            offloads[span] = mark[2]
        if mark[1] == "!":
            strict.add(span)
        line += words
        at = mark.end()
    return Golden(theme, line + marked[at:], offloads, strict, stays, toolchains)


def load() -> list[Golden]:
    found: list[Golden] = []
    for path in sorted(FOLDER.glob("*.yaml")):
        data = yaml.safe_load(path.read_text("utf-8"))
        unknown = set(data) - {"why", "lines", "texts", "toolchains"}
        assert not unknown, f"{path.name}: unknown {unknown}"
        assert data["why"], f"{path.name}: why is required"
        marked = [*data.get("lines", "").splitlines(), *(text.rstrip("\n") for text in data.get("texts", []))]
        found.extend(_parse(path.stem, one, tuple(data.get("toolchains", ()))) for one in marked)
    return found
