"""Which toolchain identities a worker has, read out of its facts, and where they lie there.

The facts come from a worker and are checked as untrusted: anything odd counts as absent.

Shape in rch.fact::

    "toolchains": {"rust": [{"identity", "shown", "binds": {path at the workstation: path on the worker},
                             "path": directories behind the caller's PATH, "name", "components",
                             "targets": [triples whose standard library is there]}, …],
                   "c": […], "go": […], "node": […]}

``path`` may be missing; ``name``, ``components`` and ``targets`` are Rust's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any


def _entries(facts: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    toolchains = facts.get("toolchains")
    if not isinstance(toolchains, Mapping):
        return
    for tool, rows in toolchains.items():
        if isinstance(tool, str) and isinstance(rows, list):
            for row in rows:
                if isinstance(row, Mapping) and isinstance(row.get("identity"), str):
                    yield tool, row


def identities(facts: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Tool name -> identity strings present on the worker."""
    found: dict[str, set[str]] = {}
    for tool, row in _entries(facts):
        found.setdefault(tool, set()).add(row["identity"])
    return {tool: frozenset(values) for tool, values in found.items()}


def shown(facts: Mapping[str, Any]) -> dict[str, str]:
    """Tool name -> short form for messages ("rustc 1.94.1, rustc 1.95.0")."""
    found: dict[str, list[str]] = {}
    for tool, row in _entries(facts):
        text = row.get("shown")
        found.setdefault(tool, []).append(text if isinstance(text, str) else row["identity"].split("\n")[0])
    return {tool: ", ".join(sorted(set(values)))[:200] for tool, values in found.items()}


def rust_targets(facts: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Identity of a Rust toolchain -> triples whose standard library the worker has (coverage B-7)."""
    found: dict[str, frozenset[str]] = {}
    for tool, row in _entries(facts):
        targets = row.get("targets")
        if tool == "rust" and isinstance(targets, list):
            triples = frozenset(one for one in targets if isinstance(one, str))
            # Where a compiler was brought twice, any of the two places may be bound.
            found[row["identity"]] = found.get(row["identity"], triples) & triples
    return found


def binds(facts: Mapping[str, Any], tool: str, identity: str) -> dict[str, str]:
    """Path at the workstation -> path on the worker, for one toolchain; empty where the paths are the same."""
    found: dict[str, str] = {}
    for name, row in _entries(facts):
        table = row.get("binds")
        # Several workstations may have brought the same compiler, each under paths of its own.
        if name == tool and row["identity"] == identity and isinstance(table, Mapping):
            found.update(
                (k, v)
                for k, v in table.items()
                if isinstance(k, str) and isinstance(v, str) and k.startswith("/") and v.startswith("/")
            )
    return found


def search_path(facts: Mapping[str, Any], tool: str, identity: str) -> tuple[str, ...]:
    """Directories (as the job sees them) that go behind the caller's PATH, so that the tool is found there."""
    rows = [row for name, row in _entries(facts) if name == tool and row["identity"] == identity]
    paths = [path for row in rows if isinstance(row.get("path"), str) for path in row["path"].split(":")]
    return tuple(dict.fromkeys(path for path in paths if path.startswith("/")))


def equipment(facts: Mapping[str, Any]) -> str:
    """A word for all that a build may find or miss on the worker: its system, packages and toolchains."""
    parts = [worker_class(facts), str(facts.get("packages", ""))]
    parts += sorted(f"{tool} {row['identity']}" for tool, row in _entries(facts))
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=8).hexdigest()


def worker_class(facts: Mapping[str, Any]) -> str:
    """Distribution, release and architecture, e.g. "debian-12-x86_64"; "unknown" before the first facts."""
    system = facts.get("os")
    if not isinstance(system, Mapping):
        return "unknown"
    parts = [str(system.get(k, "")) for k in ("id", "version_id")] + [str(facts.get("machine", ""))]
    return "-".join(p for p in parts if p)[:100] or "unknown"
