"""On which line a key stands: tomllib says what a file holds, not where.

The text is known to be valid TOML (tomllib has read it), so the scan only has to tell keys from values.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping

_SPACE = re.compile(r"[ \t\r\n]+")
_COMMENT = re.compile(r"#[^\n]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}'  # a multi-line string may end in up to two quotes of its own
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]+")
_KEY_PART = re.compile(r'\s*("(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|[A-Za-z0-9_-]+)\s*(\.?)')


def key_lines(text: str) -> Mapping[tuple[str, ...], int]:
    """Line (from 1) on which each key and table of *text* first stands, by path; arrays of tables count as one."""
    text = text.replace("\r\n", "\n")
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    at, line, counted = 0, 1, 0
    # What is open, innermost last: the bracket, and the path that the value behind it belongs to.
    opened: list[tuple[str, tuple[str, ...]]] = []
    expect_key = True

    def skip(pattern: re.Pattern[str]) -> bool:
        nonlocal at
        found = pattern.match(text, at)
        if found is not None:
            at = found.end()
        return found is not None

    def keys(below: tuple[str, ...]) -> tuple[str, ...]:
        """Read a dotted key at *at* and note the line of every prefix."""
        nonlocal at
        path = below
        while (found := _KEY_PART.match(text, at)) is not None:
            at = found.end()
            path = (*path, _unquoted(found[1]))
            lines.setdefault(path, line)
            if not found[2]:
                break
        return path

    value_path: tuple[str, ...] = ()
    while at < len(text):
        if skip(_SPACE) or skip(_COMMENT):
            # A value ends with its line, unless a bracket is open.
            line += text.count("\n", counted, at)
            if not opened and "\n" in text[counted:at]:
                expect_key = True
            counted = at
            continue
        line += text.count("\n", counted, at)
        counted = at
        character = text[at]
        if expect_key:
            if not opened and character == "[":
                at += 2 if text.startswith("[[", at) else 1
                table = keys(())
                at = text.find("\n", at) if "\n" in text[at:] else len(text)
                continue
            if opened and character == "}":
                opened.pop()
                at += 1
                expect_key = False
                continue
            start = at
            value_path = keys(opened[-1][1] if opened else table)
            at = text.find("=", at) + 1
            if at <= start:
                return lines  # not TOML after all
            expect_key = False
        elif character in "[{":
            # An element of an array belongs to the array's key, whatever keys came up inside the elements before it.
            opened.append((character, opened[-1][1] if opened and opened[-1][0] == "[" else value_path))
            expect_key = character == "{"
            at += 1
        elif character in "]}":
            if opened:
                opened.pop()
            at += 1
        elif character == ",":
            expect_key = bool(opened) and opened[-1][0] == "{"
            at += 1
        elif not skip(_STRING) and not skip(_SCALAR):
            at += 1
    return lines


def line_of(lines: Mapping[tuple[str, ...], int], path: tuple[str, ...]) -> int:
    """The line of *path*, else of the longest part of it that is known, else 1."""
    for length in range(len(path), 0, -1):
        if (found := lines.get(path[:length])) is not None:
            return found
    return 1


def _unquoted(part: str) -> str:
    if part.startswith("'"):
        return part[1:-1]
    if part.startswith('"'):
        try:
            return str(tomllib.loads(f"x = {part}")["x"])
        except ValueError:
            return part
    return part
