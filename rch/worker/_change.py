"""What a push asks of a root's tree: parsed and checked as a whole before a single path is touched."""

from __future__ import annotations

from typing import Any, Dict, FrozenSet, Iterable, List, Mapping, NamedTuple, Optional, Tuple

from rch.worker.protocol import Entry, ProtocolError, check_relpath, entry_from_json, hash_bytes
from rch.worker.refusal import Refusal


class Change(NamedTuple):
    """Checked push. Paths are clean, unique, and no file or link of the list lies above another path of it.

    entries: in the order given. bodies: path -> content. staged: files that lie in the staging directory.
    exact:   files whose time is never bumped: an older product is put back, nothing was edited.
    """

    entries: List[Entry]
    deletes: List[str]
    bodies: Mapping[str, bytes]
    staged: FrozenSet[str]
    exact: FrozenSet[str]

    @property
    def empty(self) -> bool:
        return not (self.entries or self.deletes)


def parse_change(fields: Mapping[str, Any], body: bytes) -> Tuple[Change, bytes]:
    """The change of a ``sync`` request or of one root of ``prepare``; returns what of *body* it did not use.

    Raises Refusal: bad-request for what breaks a rule, mismatch for a body that is not what its entry declares.
    """
    try:
        entries = [entry_from_json(row) for row in _list(fields, "changes")]
        deletes = [_path(path) for path in _list(fields, "deletes")]
        staged = frozenset(_path(path) for path in _list(fields, "staged"))
        exact = frozenset(_path(path) for path in _list(fields, "exact"))
    except ProtocolError as error:
        raise Refusal("bad-request", str(error)) from error
    by_path = {entry.path: entry for entry in entries}
    if len(by_path) != len(entries):
        raise Refusal("bad-request", "a path is listed twice in changes")
    for entry in entries:
        _check_parents(entry.path, by_path)
    doomed = [path for path in deletes if path in by_path]
    if doomed:
        raise Refusal("bad-request", "both changed and deleted: %r" % (doomed[0],))
    bodies, rest = split_bodies(_list(fields, "bodies"), body)
    files = {entry.path for entry in entries if entry.type == "f"}
    strays = (set(bodies) | staged) - files
    if strays:
        raise Refusal("bad-request", "content for %r, which is no file in changes" % (min(strays),))
    for path, data in bodies.items():
        check_content(by_path[path], len(data), hash_bytes(data))
    return Change(entries, deletes, bodies, staged, exact), rest


def split_bodies(table: Iterable[Any], body: bytes) -> Tuple[Dict[str, bytes], bytes]:
    """Cut *body* along ``[[path, size], …]``; returns the pieces and the rest."""
    pieces: Dict[str, bytes] = {}
    position = 0
    for item in table:
        if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str) or type(item[1]) is not int:
            raise Refusal("bad-request", "bodies is a list of [path, size]")
        path, size = item
        if size < 0 or position + size > len(body):
            raise Refusal("bad-request", "the body ends before the content of %r" % (path[:200],))
        pieces[path] = body[position : position + size]
        position += size
    return pieces, body[position:]


def check_content(entry: Entry, size: int, content: str) -> None:
    """Refuse content that is not what *entry* declares."""
    if size != entry.size or content != entry.content:
        raise Refusal(
            "mismatch",
            "%s: declared %d bytes %s, came %d bytes %s"
            % (
                ascii(entry.path)[:200],
                entry.size,
                entry.content[:12],
                size,
                content[:12],
            ),
        )


def _check_parents(path: str, by_path: Mapping[str, Entry]) -> None:
    above = path.rpartition("/")[0]
    while above:
        entry: Optional[Entry] = by_path.get(above)
        if entry is not None and entry.type != "d":
            raise Refusal("bad-request", "%r is below %r, which is no directory" % (path[:200], above[:200]))
        above = above.rpartition("/")[0]


def _list(fields: Mapping[str, Any], name: str) -> List[Any]:
    value = fields.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Refusal("bad-request", "%s is a list" % name)
    return value


def _path(value: Any) -> str:
    if not isinstance(value, str):
        raise ProtocolError("a path is a string")
    return check_relpath(value)
