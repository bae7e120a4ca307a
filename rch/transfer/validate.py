"""What a worker sends is untrusted: every answer is checked here before anything else looks at it (lessons AR-08)."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from typing import Any

from rch.errors import HostileAnswer
from rch.paths import RelPath
from rch.transfer.model import Delta
from rch.worker.protocol import (
    INLINE_LIMIT,
    Entry,
    ProtocolError,
    check_relpath,
    entry_from_json,
    hash_bytes,
    path_bytes,
    path_text,
)

MAX_PATHS = 2_000_000
"""Paths in one answer; MAX_MESSAGE would allow a few more."""
MAX_NAME, MAX_PATH = 255, 4095
"""Bytes, as Linux has them: a longer one could only fail half-way through a placement."""
MAX_BLOCKS = 1 << 53
"""Bytes in one file. Sizes are added up; nothing real is near."""
HEX = frozenset(string.hexdigits.lower())


def checked_entry(row: Any, host: str) -> Entry:
    """Decode one entry. Raises HostileAnswer for escapes, devices, setuid bits, sizes and contents that cannot be."""
    try:
        entry = entry_from_json(row)
    except ProtocolError as error:
        shown = row[0] if isinstance(row, list) and row and isinstance(row[0], str) else ""
        raise _hostile(host, str(error), shown) from error
    _check_length(entry.path, host)
    content = entry.content
    if entry.type == "f":
        if len(content) != 64 or not HEX.issuperset(content) or entry.size >= MAX_BLOCKS:
            raise _hostile(host, "a file without a proper hash or size", entry.path)
        if entry.group is not None and entry.group < 0:
            raise _hostile(host, "a negative hard-link group", entry.path)
        return entry
    if entry.size or entry.group is not None:
        raise _hostile(host, "a directory or link with a size or a hard-link group", entry.path)
    if entry.type == "d" and content:
        raise _hostile(host, "a directory with content", entry.path)
    if entry.type == "l" and (not content or "\0" in content or entry.mode):
        raise _hostile(host, "a link whose target cannot be", entry.path)
    if entry.type == "l":
        _check_length(content, host)
    return entry


def checked_path(path: Any, host: str) -> RelPath:
    """A clean path inside the root. Raises HostileAnswer."""
    if not isinstance(path, str):
        raise _hostile(host, "a path that is no string", "")
    try:
        check_relpath(path)
    except ProtocolError as error:
        raise _hostile(host, str(error), path) from error
    _check_length(path, host)
    return RelPath(path)


def checked_entries(rows: Any, host: str) -> tuple[Entry, ...]:
    """Decode a list of entries: each path once, hard-linked sets of one content. Raises HostileAnswer.

    The names of one file may come with different times, see :func:`rch.transfer.returns.one_time_per_file`.
    """
    if not isinstance(rows, list) or len(rows) > MAX_PATHS:
        raise _hostile(host, "an answer without a proper list of paths", "")
    entries = tuple(checked_entry(row, host) for row in rows)
    seen: set[str] = set()
    groups: dict[int, Entry] = {}
    for entry in entries:
        if entry.path in seen:
            raise _hostile(host, "a path is listed twice", entry.path)
        seen.add(entry.path)
        if entry.group is not None and not groups.setdefault(entry.group, entry).same_content(entry):
            raise _hostile(host, "names of one hard-linked file differ", entry.path)
    return entries


def check_tree(entries: Mapping[str, Entry], host: str) -> None:
    """No path may lie below something that is no directory: a link, then a file through it. Raises HostileAnswer."""
    fine: set[str] = set()
    for path in entries:
        head = path.rpartition("/")[0]
        climbed = []
        while head and head not in fine:
            above = entries.get(head)
            if above is not None and above.type != "d":
                raise _hostile(host, f"a path below {head!r}, which is no directory", path)
            climbed.append(head)
            head = head.rpartition("/")[0]
        fine.update(climbed)


def parse_index(fields: Mapping[str, Any], host: str) -> tuple[str, bool, tuple[Entry, ...]]:
    """Generation ("" for a new, empty tree), dirty and entries of an ``index`` answer. Raises HostileAnswer."""
    entries = checked_entries(fields.get("entries"), host)
    check_tree({e.path: e for e in entries}, host)
    generation = "" if fields.get("generation") == "" and not entries else checked_generation(fields, host)
    return generation, bool(fields.get("dirty")), entries


def parse_delta(fields: Mapping[str, Any], body: bytes, host: str) -> Delta:
    """A ``delta`` answer, its bodies checked against size and hash. Raises HostileAnswer."""
    entries = _in_order(checked_entries(fields.get("entries"), host), fields.get("order"), host)
    paths = {e.path: e for e in entries}
    rows = fields.get("deletes", [])
    if not isinstance(rows, list) or len(rows) > MAX_PATHS:
        raise _hostile(host, "a delta without a proper list of deletions", "")
    deletes = tuple(checked_path(row, host) for row in rows)
    for path in deletes:
        if path in paths:
            raise _hostile(host, "a path is both there and deleted", path)
    complete = fields.get("complete")
    if not isinstance(complete, bool):
        raise _hostile(host, "a delta that does not say whether it is complete", "")
    bodies = parse_bodies(fields.get("bodies", []), body, paths, host)
    return Delta(checked_generation(fields, host), complete, entries, deletes, bodies)


def parse_bodies(rows: Any, body: bytes, wanted: Mapping[str, Entry], host: str) -> dict[str, bytes]:
    """Contents that came in a message body, each with the size and hash of its entry. Raises HostileAnswer."""
    if not isinstance(rows, list) or len(body) > INLINE_LIMIT:
        raise _hostile(host, "an answer with more content than one may carry", "")
    found: dict[str, bytes] = {}
    at = 0
    for row in rows:
        if not isinstance(row, list) or len(row) != 2 or type(row[1]) is not int or row[1] < 0:
            raise _hostile(host, "a list of contents that does not parse", "")
        path, size = checked_path(row[0], host), row[1]
        entry = wanted.get(path)
        if entry is None or entry.type != "f" or path in found:
            raise _hostile(host, "content that nobody asked for", path)
        data = body[at : at + size]
        at += size
        if size != entry.size or len(data) != size or hash_bytes(data) != entry.content:
            raise _hostile(host, "content that does not have its declared size and hash", path)
        found[path] = data
    if at != len(body):
        raise _hostile(host, "an answer longer than it declares", "")
    return found


def checked_generation(fields: Mapping[str, Any], host: str) -> str:
    """The ``generation`` of an answer. Raises HostileAnswer."""
    generation = fields.get("generation")
    if not isinstance(generation, str) or not 0 < len(generation) <= 128:
        raise _hostile(host, "an answer without a generation", "")
    return generation


def _in_order(entries: tuple[Entry, ...], order: Any, host: str) -> tuple[Entry, ...]:
    """*entries* as *order* (paths, oldest first) says; a worker that sends them in order may leave it out."""
    if order is None:
        return entries
    by_path = {e.path: e for e in entries}
    if not isinstance(order, list) or len(order) != len(entries):
        raise _hostile(host, "an order that does not name every path once", "")
    try:
        ordered = tuple(by_path.pop(path) for path in order)
    except (KeyError, TypeError) as error:
        raise _hostile(host, "an order that does not name every path once", "") from error
    return ordered


def _check_length(path: str, host: str) -> None:
    try:
        data = path_bytes(path)
    except UnicodeEncodeError as error:
        raise _hostile(host, "a path that no file system has", ascii(path)) from error
    # "\udcc3\udca9" and "\u00e9" are the same bytes: only one spelling counts, else a path could come twice
    if not path.isascii() and path_text(data) != path:
        raise _hostile(host, "a path in a spelling of its own", ascii(path))
    if len(data) > MAX_PATH or (len(data) > MAX_NAME and max(map(len, data.split(b"/"))) > MAX_NAME):
        raise _hostile(host, "a path longer than any file system has", path)


def _hostile(host: str, what: str, path: str) -> HostileAnswer:
    shown = f": {path[:200]!r}" if path else ""
    return HostileAnswer(
        f"{host} answered with {what}{shown}; nothing of it was placed",
        host=host,
        path=path,
        hint=f"rch workers drain {host}, then look at the machine",
    )


def refuse(host: str, what: str, paths: Iterable[str]) -> HostileAnswer:
    """A HostileAnswer for the caller's own findings."""
    return _hostile(host, what, next(iter(paths), ""))
