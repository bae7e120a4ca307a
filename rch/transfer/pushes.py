"""What has to be sent so that a worker has this tree, and how (lessons SP-02, SP-09, SP-12). Decides, sends nothing."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping

from rch.errors import NotOffloadable
from rch.paths import RelPath
from rch.project.model import Manifest, Root
from rch.transfer.held import HeldIndex
from rch.transfer.model import PushPlan
from rch.transfer.scope import Classes
from rch.worker.protocol import Entry

MB = 1_000_000


def plan_push(
    manifest: Manifest,
    root: Root,
    held: HeldIndex,
    exists_here: Callable[[str], bool],
) -> PushPlan:
    """What makes the worker's tree equal *manifest*. Pure but for *exists_here* (does the path exist in the root?).

    Outside the build directories the worker's tree becomes the manifest exactly. In a build directory only paths that
    both sides have held are removed when they are gone here; the rest is the worker's own warm state.
    """
    sent = manifest.entries
    there = held.entries
    changes: list[Entry] = []
    metadata: list[Entry] = []
    link, part = _relinked(sent, there)
    again = link | part
    differing = [path for path, entry in sent.items() if there.get(path) != entry or path in again]  # nearly none
    for path in differing:
        entry, known = sent[path], there.get(path)
        if path in link or known is None or not _same_content(known, entry):
            changes.append(entry)
        elif known.mtime_ns != entry.mtime_ns or known.mode != entry.mode or path in part:
            metadata.append(entry)
    # a record that was lost says nothing about what made the build directory there: it starts cold
    cold = not held.trusted
    deletes = _deletes(held, manifest, root, exists_here, cold=cold)
    contents = _leaders(e for e in changes if e.type == "f")
    return PushPlan(
        root_key=root.key,
        base=held.generation or "",
        changes=tuple(changes),
        contents=tuple(e for e in contents if e.path not in there or not _same_content(there[e.path], e)),
        metadata=tuple(metadata),
        deletes=tuple(deletes),
        exact=tuple(RelPath(e.path) for e in changes if e.type == "f" and (cold or e.path in held.theirs)),
    )


def _same_content(known: Entry, entry: Entry) -> bool:
    return known.content == entry.content and known.type == entry.type and known.size == entry.size


def _leaders(files: Iterable[Entry]) -> list[Entry]:
    """Each file once, however many names it has: the first name of a hard-linked set, as the worker understands it."""
    seen: set[int] = set()
    found = []
    for entry in files:
        if entry.group is not None:
            if entry.group in seen:
                continue
            seen.add(entry.group)
        found.append(entry)
    return found


def _links(entries: Mapping[str, Entry], among: Mapping[str, Entry]) -> dict[str, tuple[str, ...]]:
    """Path -> all names of its file that are *among* the manifest's paths, for files with more than one."""
    sets: dict[int, list[str]] = {}
    for path, entry in entries.items():
        if entry.group is not None and path in among:
            sets.setdefault(entry.group, []).append(path)
    return {path: tuple(sorted(paths)) for paths in sets.values() if len(paths) > 1 for path in paths}


def _relinked(sent: Mapping[str, Entry], there: Mapping[str, Entry]) -> tuple[set[str], set[str]]:
    """(names whose file must be linked anew there, names that must become a file of their own there)."""
    ours, theirs = _links(sent, sent), _links(there, sent)
    link: set[str] = set()
    for path, names in ours.items():
        if theirs.get(path) != names or there[path][1:6] != sent[path][1:6]:
            link.update(names)
    return link, {path for path in theirs if path not in ours}


def _deletes(
    held: HeldIndex, manifest: Manifest, root: Root, exists_here: Callable[[str], bool], *, cold: bool
) -> list[RelPath]:
    there, sent = held.entries, manifest.entries
    unsent = [path for path in there if path not in sent]
    if not unsent:
        return []
    classes = Classes(root, manifest)
    blocked = {path for path, entry in sent.items() if entry.type != "d"}  # nothing can lie below these any more
    candidates = [
        path
        for path in unsent
        if cold
        or not classes.is_build(path)
        or (path in held.shared and not exists_here(path))
        or _is_under(path, blocked)
    ]
    if any(there[path].type == "d" for path in candidates):
        needed = _above(sent.keys() | (there.keys() - set(candidates)))
        candidates = [path for path in candidates if path not in needed or there[path].type != "d"]
    # children sort behind their directory, so the reverse is deepest first
    return sorted(map(RelPath, candidates), reverse=True)


def _above(paths: Iterable[str]) -> set[str]:
    """Every directory above one of *paths*."""
    found: set[str] = set()
    for path in paths:
        head = path.rpartition("/")[0]
        while head and head not in found:
            found.add(head)
            head = head.rpartition("/")[0]
    return found


def _is_under(path: str, blocked: set[str]) -> bool:
    if not blocked:
        return False
    head = path.rpartition("/")[0]
    while head:
        if head in blocked:
            return True
        head = head.rpartition("/")[0]
    return False


def exists_here(root: Root) -> Callable[[str], bool]:
    """The test that :func:`plan_push` wants, by one walk of the build directories, made when first asked."""
    present: set[str] | None = None

    def test(path: str) -> bool:
        nonlocal present
        if not any(path == d or path.startswith(d + "/") for d in root.build_dirs):
            return os.path.lexists(os.path.join(root.real, path))
        if present is None:
            present = set()
            for top in root.build_dirs:
                if os.path.lexists(os.path.join(root.real, top)):
                    present.add(top)
                _list_below(root.real, top, present)
        return path in present

    return test


def _list_below(base: str, top: str, present: set[str]) -> None:
    stack = [top]
    while stack:
        directory = stack.pop()
        if os.path.islink(os.path.join(base, directory)):
            continue
        try:
            with os.scandir(os.path.join(base, directory)) as rows:
                for row in rows:
                    path = f"{directory}/{row.name}"
                    present.add(path)
                    if row.is_dir(follow_symlinks=False):
                        stack.append(path)
        except OSError:
            continue  # gone since its parent was read, or closed to us


def check_size(plan: PushPlan, limit_bytes: int, root: Root) -> None:
    """Raise NotOffloadable ``too-large`` when more than *limit_bytes* would be sent (coverage A-17)."""
    if plan.size_bytes <= limit_bytes:
        return
    largest = sorted(plan.contents, key=lambda e: e.size, reverse=True)[:5]
    names = ", ".join(f"{e.path} ({_megabytes(e.size)})" for e in largest)
    raise NotOffloadable(
        f"{root.path}: {_megabytes(plan.size_bytes)} to send, above the limit of {_megabytes(limit_bytes)}; "
        f"largest: {names}",
        code="too-large",
        hint="raise transfer.max_transfer_size_mb, or leave files out in .rchignore",
    )


def _megabytes(size: int) -> str:
    return f"{size / MB:.1f} MB"


def compression_level(
    setting: int | str, *, direction: str, mbit_s: float | None, cpu_score: float | None, loopback: bool
) -> int:
    """The level for one transfer; 0 is none (coverage A-18).

    setting:   1 to 19, or "auto". direction: "push" or "return".
    mbit_s:    measured rate of the link, None before it was measured. cpu_score: the sender's, 100 = reference.
    """
    if isinstance(setting, int):
        return setting
    if loopback:
        return 0
    if mbit_s is None or mbit_s <= 0:
        return 3 if direction == "push" else 1
    score = 100.0 if cpu_score is None else cpu_score
    return min(9, max(1, math.floor(10 * (100 / mbit_s) * score / 100)))
