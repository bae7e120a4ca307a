"""gitignore patterns, evaluated here: git cannot apply a second set of rules to tracked files or outside a repository.

The language is that of gitignore(5): the last matching line decides, ``!`` takes back, a leading or inner ``/``
anchors, a trailing one means directories. What lies below an excluded directory is out with it; the walk that asks
sees to that by not going there. Matching is done on bytes, as git does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from rch.worker.protocol import path_bytes

_STAR = rb"[^/]*"
_DIRECTORIES = rb"(?:.*/)?"
_CLASSES = {
    b"alnum": rb"0-9A-Za-z",
    b"alpha": rb"A-Za-z",
    b"blank": rb" \t",
    b"cntrl": rb"\x00-\x1f\x7f",
    b"digit": rb"0-9",
    b"graph": rb"\x21-\x7e",
    b"lower": rb"a-z",
    b"print": rb"\x20-\x7e",
    b"punct": rb"!-/:-@\[-`{-~",
    b"space": rb" \t\n\r\f\v",
    b"upper": rb"A-Z",
    b"xdigit": rb"0-9A-Fa-f",
}


@dataclass(frozen=True)
class _Rule:
    regex: re.Pattern[bytes]
    negated: bool
    directories_only: bool


class Patterns:
    """A list of gitignore lines, relative to one directory."""

    def __init__(self, lines: Iterable[str]) -> None:
        sources: list[bytes] = []
        rules: list[_Rule] = []
        for line in lines:
            parsed = _parse(path_bytes(line))
            if parsed is None:
                continue
            source, negated, directories_only = parsed
            sources.append(source)
            rules.append(_Rule(re.compile(source, re.DOTALL), negated, directories_only))
        self._rules = tuple(reversed(rules))
        self._any = re.compile(b"|".join(b"(?:%s)" % source for source in sources), re.DOTALL) if sources else None

    def __bool__(self) -> bool:
        return self._any is not None

    def verdict(self, path: str, *, is_dir: bool) -> bool | None:
        """True = excluded, False = taken back by ``!``, None = no line speaks of *path* itself."""
        if self._any is None:
            return None
        subject = path_bytes(path)
        if self._any.fullmatch(subject) is None:
            return None
        for rule in self._rules:
            if (is_dir or not rule.directories_only) and rule.regex.fullmatch(subject):
                return not rule.negated
        return None


def _parse(line: bytes) -> tuple[bytes, bool, bool] | None:
    """(regex source for the whole path, negated, directories only) of one line, None for comments and blanks."""
    line = line.rstrip(b"\n").removesuffix(b"\r")
    stripped = line.rstrip(b" ")
    if stripped != line and (len(stripped) - len(stripped.rstrip(b"\\"))) % 2:
        stripped += b" "  # an escaped blank at the end stays
    line = stripped
    if not line or line.startswith(b"#"):
        return None
    negated = line.startswith(b"!")
    if negated:
        line = line[1:]
    directories_only = line.endswith(b"/")
    if directories_only:
        line = line[:-1]
    anchored = b"/" in line
    line = line.removeprefix(b"/")
    if not line:
        return None
    source = _translate(line)
    if source is None:
        return None
    return (source if anchored else rb"(?:.*/)?" + source), negated, directories_only


def _translate(glob: bytes) -> bytes | None:
    """A regex for wildmatch with WM_PATHNAME; None when the pattern can match nothing (broken bracket)."""
    out: list[bytes] = []
    position, end = 0, len(glob)
    while position < end:
        char = glob[position : position + 1]
        if char == b"*":
            start = position
            while glob[position : position + 1] == b"*":
                position += 1
            at_start = start == 0 or glob[start - 1 : start] == b"/"
            doubled = position - start == 2 and at_start
            if doubled and position == end:
                out.append(rb".+" if start else rb".*")
            elif doubled and glob[position : position + 1] == b"/":
                out.append(_DIRECTORIES)
                position += 1
            else:
                out.append(_STAR)
        elif char == b"?":
            out.append(rb"[^/]")
            position += 1
        elif char == b"[":
            found = _bracket(glob, position)
            if found is None:
                return None
            source, position = found
            out.append(source)
        elif char == b"\\":
            if position + 1 == end:
                return None
            out.append(re.escape(glob[position + 1 : position + 2]))
            position += 2
        else:
            out.append(re.escape(char))
            position += 1
    return b"".join(_decided(_decided(out, _STAR, rb"(?>[^/]*?%s)", _DIRECTORIES), _DIRECTORIES, rb"(?>(?:.*?/)??%s)"))


def _decided(parts: list[bytes], wildcard: bytes, first: bytes, *further: bytes) -> list[bytes]:
    """*parts* with every *wildcard* that another one (or of *further*) follows bound to the first place that fits.

    What comes after can still be anything, so no other place could help; and a pattern of many wildcards, which anybody
    may write into a repository, cannot keep the matcher busy for longer than the path is long.
    """
    out: list[bytes] = []
    rest = list(parts)
    while wildcard in rest:
        start = rest.index(wildcard)
        ends = [rest.index(other, start + 1) for other in (wildcard, *further) if other in rest[start + 1 :]]
        if not ends:
            break
        out += rest[:start]
        out.append(first % b"".join(rest[start + 1 : min(ends)]))
        rest = rest[min(ends) :]
    return out + rest


def _bracket(glob: bytes, position: int) -> tuple[bytes, int] | None:
    """(regex, position behind it) of the bracket expression at *position*."""
    position += 1
    negated = glob[position : position + 1] in (b"!", b"^")
    if negated:
        position += 1
    parts: list[bytes] = []
    first = True
    while True:
        char = glob[position : position + 1]
        if not char:
            return None
        if char == b"]" and not first:
            break
        first = False
        if char == b"[" and glob[position + 1 : position + 2] == b":":
            close = glob.find(b":]", position + 2)
            if close < 0:
                return None
            known = _CLASSES.get(glob[position + 2 : close])
            if known is None:
                return None
            parts.append(known)
            position = close + 2
            continue
        if char == b"\\":
            position += 1
            char = glob[position : position + 1]
            if not char:
                return None
        position += 1
        if glob[position : position + 1] == b"-" and glob[position + 1 : position + 2] not in (b"]", b""):
            position += 1
            last = glob[position : position + 1]
            if last == b"\\":
                position += 1
                last = glob[position : position + 1]
                if not last:
                    return None
            position += 1
            if char <= last:
                parts.append(re.escape(char) + b"-" + re.escape(last))
        else:
            parts.append(re.escape(char))
    if not parts:
        return (rb"[^/]" if negated else rb"(?!)"), position + 1
    inside = b"".join(parts)
    source = (rb"[^" + inside + rb"/]") if negated else (rb"(?!/)[" + inside + rb"]")
    return source, position + 1
