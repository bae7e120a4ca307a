"""Edits of configuration files: comments and order stay, and nothing is written that does not validate."""

from __future__ import annotations

import os
import time
import tomllib
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from rch.config.keys import KeyRow, Path, check_value, expectation, plain, row_of, split_dotted, unknown_key
from rch.config.layers import Layer, inspect_layer, shown
from rch.config.trust import write_private
from rch.errors import ConfigError, UsageError
from rch.paths import AbsPath


def value_from_text(key: str, text: str) -> tuple[Path, Any]:
    """What *text*, typed by a person, means for *key*: a TOML value, else a plain string, else names with commas.

    Raises ConfigError for an unknown key or a value that the key cannot have.
    """
    path = split_dotted(key)
    row = row_of(path) if path else None
    if path is None or row is None:
        raise unknown_key(key, path)
    for candidate in _readings(text):
        try:
            _check(row, path, candidate)
        except ValidationError:
            continue
        return path, candidate
    raise ConfigError(f"{key} must be {expectation(row)}, got {shown(text)}", key=key, hint="docs/configuration.md")


def set_value(file: AbsPath, layer: Layer, path: Path, value: Any) -> None:
    """Write *value* for *path* into *file*; raises ConfigError and writes nothing when the result is wrong."""
    document = _load(file)
    table: Any = document
    for part in path[:-1]:
        if part not in table:
            import tomlkit

            table[part] = tomlkit.table()
        table = table[part]
    table[path[-1]] = plain(value)
    write_checked(file, layer, document.as_string())


def unset_value(file: AbsPath, layer: Layer, path: Path) -> bool:
    """Take *path* out of *file*; False when it is not there."""
    document = _load(file)
    table: Any = document
    for part in path[:-1]:
        table = table.get(part)
        if table is None:
            return False
    if path[-1] not in table:
        return False
    del table[path[-1]]
    write_checked(file, layer, document.as_string())
    return True


def write_checked(file: AbsPath, layer: Layer, text: str) -> None:
    """Replace *file* by *text* when that validates; raises the first ConfigError otherwise."""
    found = inspect_layer(text.encode(), file, layer)
    if isinstance(found, list):
        raise found[0]
    target = AbsPath(os.path.realpath(file))
    os.makedirs(os.path.dirname(target), exist_ok=True)
    mode = os.stat(target).st_mode & 0o777 if os.path.exists(target) else 0o644
    write_private(target, text.encode(), mode)


def set_aside(file: AbsPath) -> AbsPath:
    """Rename *file* to ``<file>.bak.<seconds>``; raises UsageError when there is none."""
    backup = f"{file}.bak.{int(time.time())}"
    try:
        os.rename(file, backup)
    except FileNotFoundError:
        raise UsageError(f"{file} does not exist, the defaults hold already", what=file) from None
    return AbsPath(backup)


def _readings(text: str) -> Iterator[Any]:
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        table = {}
    if set(table) == {"value"}:  # a newline in the text must not smuggle in a second key
        yield table["value"]
    yield text
    if text.strip() and not text.lstrip().startswith(("[", "{", '"', "'")):  # that was meant to be TOML, and is wrong
        yield [part.strip() for part in text.split(",")]


def _check(row: KeyRow, path: Path, value: Any) -> None:
    check_value(row, {path[-1]: value} if len(path) > len(row.path) else value)


def _load(file: AbsPath) -> Any:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        with open(file, encoding="utf-8", newline="") as stream:
            return tomlkit.parse(stream.read())
    except FileNotFoundError:
        return tomlkit.document()
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8", file=file, hint=f"mend {file}, or move it away") from error
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=file, hint=f"ls -ld {file}") from error
    except TOMLKitError as error:
        line = getattr(error, "line", 0)
        hint = f"mend {file}, or move it away"
        raise ConfigError(f"is not valid TOML: {error}", file=file, line=line, hint=hint) from error
