"""One file of the configuration: read, checked against the schema, with the line of every value."""

from __future__ import annotations

import enum
import json
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from rch.config.keys import KeyRow, Path, check_value, dotted, expectation, nearest, plain, retired, row_of, table_of
from rch.config.positions import key_lines, line_of
from rch.errors import ConfigError
from rch.paths import AbsPath
from rch.worker.protocol import hash_bytes

FILE_SIZE_MAX = 1024 * 1024
"""Bytes. A larger file is no configuration."""

Identity = tuple[int, int, int, int]
"""Device, inode, size, mtime_ns: a file that keeps all four has not changed (coverage A-4)."""


class Layer(enum.IntEnum):
    """Where a value comes from; a higher layer wins."""

    DEFAULT = 0
    SYSTEM = 1
    USER = 2
    PROJECT = 3
    ENVIRONMENT = 4
    FLAG = 5

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Origin:
    """Where one value comes from. ``place`` is a file, a variable or an option; ``line`` from 1, 0 = none.

    untrusted: the project file has a value that is not active (``inert``), the effective one is a lower layer's.
    """

    layer: Layer
    place: str = ""
    line: int = 0
    untrusted: bool = False
    inert: Any = None

    @property
    def word(self) -> str:
        return "untrusted" if self.untrusted else self.layer.word

    def shown(self) -> str:
        place = f"{self.place}:{self.line}" if self.line else self.place
        return f"{self.word} ({place})" if place else self.word


@dataclass(frozen=True)
class LayerFile:
    """What one file says. ``values`` has one entry per key (open tables: per name), checked and in schema form."""

    path: AbsPath
    layer: Layer
    digest: str
    values: Mapping[Path, Any]
    lines: Mapping[Path, int] = field(repr=False)

    def line(self, path: Path) -> int:
        return line_of(self.lines, path)


_REMEDIES = {
    Layer.SYSTEM: "rch config validate",
    Layer.USER: "rch config edit --user",
    Layer.PROJECT: "rch config edit",
}

_cache: dict[tuple[AbsPath, Layer], tuple[Identity, LayerFile]] = {}


def identity_of(path: str) -> Identity | None:
    """The identity of a file, None when there is none."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=path) from error
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def read_layer(path: AbsPath, layer: Layer, *, below: str = "") -> LayerFile | None:
    """Read and check the file at *path*; None when there is none. Unchanged files are not read again.

    below: when given, a file that lies elsewhere once links are resolved is refused (a project's file could otherwise
           make rchd read, and quote, what its caller may not).
    Raises ConfigError with file, line, key and the nearest known key.
    """
    try:
        now = identity_of(path)
        if now is None:
            return None
        held = _cache.get((path, layer))
        if held is not None and held[0] == now:
            return held[1]
        identity, data = _read(path, below)
        found = parse_layer(data, path, layer)
    except ConfigError as error:
        error.hint = error.hint or _REMEDIES.get(layer, "")
        raise
    if len(_cache) > 1024:
        _cache.clear()
    _cache[(path, layer)] = (identity, found)
    return found


def parse_layer(data: bytes, path: AbsPath, layer: Layer) -> LayerFile:
    """Check the contents of a file; raises ConfigError for the problem that stands first in it."""
    found = inspect_layer(data, path, layer)
    if isinstance(found, LayerFile):
        return found
    raise found[0]


def inspect_layer(data: bytes, path: AbsPath, layer: Layer) -> LayerFile | list[ConfigError]:
    """As :func:`parse_layer`, but all problems at once, in the order of their lines."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return [ConfigError("is not UTF-8", file=path, line=line)]
    try:
        table = tomllib.loads(text)
        lines = key_lines(text)
    except tomllib.TOMLDecodeError as error:
        return [_syntax_error(str(error), text, path)]
    except ValueError:  # an integer of more digits than Python converts
        return [ConfigError("a number has too many digits", file=path, line=_longest_digits(text))]
    except RecursionError:
        return [ConfigError("is nested too deeply", file=path, line=1)]
    values: dict[Path, Any] = {}
    problems: list[ConfigError] = []
    for where, value in _leaves(table, ()):
        try:
            values.update(_checked(where, value, layer))
        except _Off as off:
            line = line_of(lines, off.path)
            problems.append(
                ConfigError(off.message, file=path, line=line, key=dotted(off.path), nearest=off.nearest, hint=off.hint)
            )
    if problems:
        return sorted(problems, key=lambda problem: problem.line)
    return LayerFile(path=path, layer=layer, digest=hash_bytes(data), values=values, lines=lines)


class _Off(Exception):
    def __init__(self, path: Path, message: str, *, nearest: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.path, self.message, self.nearest, self.hint = path, message, nearest, hint


def _leaves(table: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, Any]]:
    """Every value that the schema has a row for, or that it does not know; tables of the schema are entered."""
    for part, value in table.items():
        here = (*path, part)
        if isinstance(value, dict) and table_of(here) is not None:
            yield from _leaves(value, here)
        elif isinstance(value, dict) and row_of(here) is None and _leads_to_table(here):
            for name, inner in value.items():
                if isinstance(inner, dict):
                    yield from _leaves(inner, (*here, name))
                else:
                    yield (*here, name), inner
        else:
            yield here, value


def _leads_to_table(path: Path) -> bool:
    """``stages`` itself is no table of keys, ``stages.NAME`` is."""
    return table_of((*path, "*")) is not None


def check_flat(path: Path, value: Any, layer: Layer, place: str) -> dict[Path, Any]:
    """Check one value that does not come from a file (a flag, ``rch config set``); raises ConfigError."""
    try:
        return _checked(path, value, layer)
    except _Off as off:
        raise ConfigError(off.message, file=place, key=dotted(off.path), nearest=off.nearest, hint=off.hint) from None


def _checked(path: Path, value: Any, layer: Layer) -> dict[Path, Any]:
    name = dotted(path)
    if replacement := retired(path):
        raise _Off(path, f"{name} no longer exists: {replacement}", hint=f"delete {name}")
    row = row_of(path)
    if row is None:
        if table_of(path) is not None or _leads_to_table(path) or _inside_open(path):
            raise _Off(path, f"{name} must be a table, got {shown(value)}")
        close = nearest(path)
        meant = f"; did you mean {close}?" if close else ""
        raise _Off(path, f"unknown key {name}{meant}", nearest=close)
    if layer in (Layer.SYSTEM, Layer.USER) and not row.in_user_file:
        raise _Off(path, f"{name} belongs in a project's .rch/config.toml", hint="move it there")
    if layer is Layer.PROJECT and not row.in_project_file:
        raise _Off(path, f"{name} does not count in a project file", hint="move it to the user's config.toml")
    if len(path) > len(row.path):  # one name of an open table
        kept = _validated(row, {path[-1]: value}, path)
        return {path: kept[path[-1]]}
    kept = _validated(row, value, path)
    return {(*path, part): item for part, item in kept.items()} if row.open else {path: kept}


def _inside_open(path: Path) -> bool:
    """``stages.fmt = 3``: the name of an entry with something else than a table in its place."""
    return len(path) > 1 and _leads_to_table(path[:-1])


def _validated(row: KeyRow, value: Any, path: Path) -> Any:
    try:
        return check_value(row, value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        cause = first.get("ctx", {}).get("error")
        why = f" ({cause})" if isinstance(cause, ValueError) else ""
        off: Path = path
        got = value
        if row.open and isinstance(value, dict):  # say which name of the table
            for name, item in value.items():
                try:
                    check_value(row, {name: item})
                except ValidationError:
                    off, got = (path if len(path) > len(row.path) else (*path, name)), item
                    break
        raise _Off(off, f"{dotted(off)} must be {expectation(row)}, got {shown(got)}{why}") from None


def shown(value: Any) -> str:
    """A value as TOML would show it, at most 60 characters, on one line."""
    try:
        text = json.dumps(plain(value), ensure_ascii=False, default=str)
    except (ValueError, RecursionError):  # too many digits, or too deep, for a message
        text = f"a {type(value).__name__}"
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= 60 else text[:57] + "..."


def _read(path: AbsPath, below: str) -> tuple[Identity, bytes]:
    target: str = path
    if below:
        target = os.path.realpath(path)
        root = os.path.realpath(below)
        if not target.startswith(root.rstrip("/") + "/"):
            raise ConfigError("is a link that leaves the project", file=path, hint=f"replace {path} by a file")
    try:
        # Neither a FIFO nor a device in a repository may make rchd wait.
        descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=path) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError("is not a regular file", file=path)
        if found.st_size > FILE_SIZE_MAX:
            raise ConfigError(f"has {found.st_size} bytes, at most {FILE_SIZE_MAX} are read", file=path)
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            data = stream.read(FILE_SIZE_MAX + 1)
    finally:
        os.close(descriptor)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns), data


def _syntax_error(message: str, text: str, path: AbsPath) -> ConfigError:
    found = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
    line = int(found[1]) if found and found[1] else max(1, len(text.splitlines()))
    what = message[: found.start()] if found else message
    what = "".join(character if character.isprintable() else "?" for character in what)
    return ConfigError(f"is not valid TOML: {what}", file=path, line=line)


def _longest_digits(text: str) -> int:
    longest = max(re.finditer(r"[0-9_]+", text), key=lambda found: len(found[0]))
    return text.count("\n", 0, longest.start()) + 1
