"""What of a worker's toolchains is not as the lock or this machine wants it. Pure; the facts are untrusted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rch.fleet.toolchains import identities, shown


def differences(facts: Mapping[str, Any], lock: Mapping[str, Any], here: Mapping[str, tuple[str, str]]) -> list[str]:
    """One line per difference, e.g. ``rust: 1.95.0 is wanted, has rustc 1.94.1 (…)``.

    lock: keys of toolchain.toml, dotted, with their values. here: tool -> (identity, short form) of this machine, for
    what the lock leaves open: rch sends a build only to the very same toolchain.
    """
    if not facts:
        return ["nothing is known of it; next: rch workers probe"]
    found = [*_rust(facts, lock), *_cpp(facts, lock), *_caching(facts, lock)]
    locked = {
        "rust": "rust.channel" in lock or lock.get("rust.method") == "none",
        "c": "cpp.gcc_version" in lock or "cpp.clang_version" in lock,
    }
    has, said = identities(facts), shown(facts)
    for tool, (identity, short) in sorted(here.items()):
        if locked.get(tool) or identity in has.get(tool, ()):
            continue
        there = said.get(tool, "none")
        if there == short:
            found.append(f"{tool}: {there} with other packages or another build than this machine's")
        else:
            found.append(f"{tool}: this machine has {short}, it has {there}")
    return found


def _rust(facts: Mapping[str, Any], lock: Mapping[str, Any]) -> list[str]:
    wanted = str(lock.get("rust.channel", ""))
    if wanted and lock.get("rust.date"):
        wanted = f"{wanted}-{lock['rust.date']}"
    rows = _rows(facts, "rust")
    if wanted:
        rows = [row for row in rows if _is_version(row, wanted)]
        if not rows:
            return [f"rust: {wanted} is wanted, has {shown(facts).get('rust', 'none')}"]
    lines = []
    for key, what in (("components", "component"), ("targets", "target")):
        asked = [str(one) for one in lock.get(f"rust.{key}", ())]
        present = {str(one) for row in rows for one in _listed(row, key)}
        lines += [f"rust: {what} {one} is wanted and not there" for one in asked if one not in present]
    return lines


def _is_version(row: Mapping[str, Any], wanted: str) -> bool:
    """By the name that rustup gives it, or the release that the compiler tells: a copy keeps its name."""
    name = str(row.get("name", ""))
    if name == wanted or re.fullmatch(re.escape(wanted) + r"-[a-z0-9_]+-[a-z0-9_-]+", name):
        return True
    return f"\nrelease: {wanted}\n" in str(row.get("identity", "")) + "\n"


def _cpp(facts: Mapping[str, Any], lock: Mapping[str, Any]) -> list[str]:
    programs = facts.get("programs")
    programs = programs if isinstance(programs, Mapping) else {}
    lines = []
    for name in ("gcc", "clang"):
        wanted = lock.get(f"cpp.{name}_version")
        said = str(programs.get(name, ""))
        version = re.search(r"(?:version |\) |^)(\d+)\.\d", said)
        if wanted and (version is None or version[1] != wanted):
            lines.append(f"cpp: {name} {wanted} is wanted, has {said[:80] or 'none'}")
    return lines


def _caching(facts: Mapping[str, Any], lock: Mapping[str, Any]) -> list[str]:
    about = facts.get("compiler_cache")
    about = about if isinstance(about, Mapping) else {}
    lines = []
    for name in ("rustc_wrapper", "cc_wrapper"):
        if f"caching.{name}" not in lock:
            continue
        wanted, has = str(lock[f"caching.{name}"]), str(about.get(name, "")).rpartition("/")[2]
        if wanted != has:
            lines.append(f"caching: {name} {wanted or 'none'} is wanted, has {has or 'none'}")
    return lines


def _rows(facts: Mapping[str, Any], tool: str) -> list[Mapping[str, Any]]:
    toolchains = facts.get("toolchains")
    rows = toolchains.get(tool) if isinstance(toolchains, Mapping) else None
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


def _listed(row: Mapping[str, Any], key: str) -> list[Any]:
    value = row.get(key)
    return value if isinstance(value, list) else []
