"""A root's tree in memory: entries and contents, with a write order, as a file system and its index would have them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from rch.worker.protocol import Entry, hash_bytes


@dataclass
class MockTree:
    """path -> Entry and contents. ``touched`` has the sequence number of each path's last write (the mock's ctime)."""

    entries: dict[str, Entry] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    touched: dict[str, int] = field(default_factory=dict)
    generation: str = ""
    dirty: bool = False
    indexed: dict[str, Entry] = field(default_factory=dict)
    _sequence: itertools.count[int] = field(default_factory=itertools.count)

    def put(self, entry: Entry, content: bytes = b"") -> None:
        """Place one path; what is in its way goes, its parents come."""
        path = entry.path
        old = self.entries.get(path)
        if old is not None and old.type != entry.type:
            self.remove(path)
        for parent in parents(path):
            known = self.entries.get(parent)
            if known is not None and known.type != "d":
                self.remove(parent)
            if self.entries.get(parent) is None:
                self._set(Entry(parent, "d", 0o755, 0, entry.mtime_ns, ""))
        self._set(entry)
        if entry.type == "f":
            self.contents[path] = content

    def remove(self, path: str) -> bool:
        """Remove a path and all below it; True if there was something."""
        gone = [p for p in self.entries if p == path or p.startswith(path + "/")]
        for one in gone:
            del self.entries[one]
            self.contents.pop(one, None)
            self.touched.pop(one, None)
        return bool(gone)

    def write(self, path: str, content: bytes, mtime_ns: int, mode: int = 0o644) -> None:
        """What a program does when it writes a file."""
        known = self.entries.get(path)
        mode = known.mode if known is not None and known.type == "f" else mode
        self.put(Entry(path, "f", mode, len(content), mtime_ns, hash_bytes(content)), content)

    def in_write_order(self) -> list[Entry]:
        """All entries, oldest write first."""
        return sorted(self.entries.values(), key=lambda e: self.touched[e.path])

    def _set(self, entry: Entry) -> None:
        self.entries[entry.path] = entry
        self.touched[entry.path] = next(self._sequence)


def parents(path: str) -> list[str]:
    """The directories above *path*, outermost first."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]
