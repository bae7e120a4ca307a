"""Settings files of other programs: read whole, small, or said to be unreadable."""

from __future__ import annotations

import glob
import json
import os
import tomllib
from typing import Any

SIZE_MAX = 4 << 20
"""Bytes; a larger file is no settings file."""


class Unreadable(Exception):
    """A file of rules is there and cannot be understood: what it forbids is not known."""


def read_text(path: str) -> str | None:
    """The text of *path*, None when there is none. Raises Unreadable."""
    try:
        with open(path, "rb") as file:
            data = file.read(SIZE_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from None
    if len(data) > SIZE_MAX:
        raise Unreadable(f"{path}: larger than {SIZE_MAX} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable(f"{path}: not UTF-8") from None


def read_json(path: str) -> dict[str, Any]:
    """The object in *path*, {} when there is none. Raises Unreadable."""
    text = read_text(path)
    return {} if text is None or not text.strip() else json_object(text, path)


def json_object(text: str, place: str) -> dict[str, Any]:
    """*text* as a JSON object. Raises Unreadable."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise Unreadable(f"{place}: not JSON") from None
    if not isinstance(found, dict):
        raise Unreadable(f"{place}: not a JSON object")
    return found


def read_toml(path: str) -> dict[str, Any]:
    """The table in *path*, {} when there is none. Raises Unreadable."""
    text = read_text(path)
    try:
        return {} if text is None else tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        raise Unreadable(f"{path}: not TOML") from None


def files(*patterns: str) -> list[str]:
    """Existing files that match, sorted. Raises Unreadable for a directory that may not be listed."""
    found = []
    for pattern in patterns:
        place = os.path.dirname(pattern)
        if not glob.has_magic(place) and os.path.isdir(place) and not os.access(place, os.R_OK | os.X_OK):
            raise Unreadable(f"{place}: may not be read")
        found += sorted(glob.glob(pattern))
    return found


def table(value: Any, name: str, place: str) -> dict[str, Any]:
    """``value[name]`` as a table, {} when it is missing. Raises Unreadable."""
    found = value.get(name, {})
    if not isinstance(found, dict):
        raise Unreadable(f"{place}: {name} is no table")
    return found


def texts(value: Any, name: str, place: str) -> list[str]:
    """``value[name]`` as a list of strings, [] when it is missing. Raises Unreadable."""
    found = value.get(name, [])
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise Unreadable(f"{place}: {name} is no list of texts")
    return found
