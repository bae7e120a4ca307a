"""What ``rch workers probe`` shows of rchd's answer (coverage D-14)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rch.cli.terminal import size

ROWS = (
    ("system", "uname"),
    ("cores", "cores"),
    ("memory", "memory_bytes"),
    ("disk free", "disk_free"),
    ("rustc", "rustc"),
    ("cargo", "cargo"),
    ("gcc", "gcc"),
    ("clang", "clang"),
    ("zstd", "zstd"),
    ("rsync", "rsync"),
    ("python", "python"),
    ("sandbox", "sandbox"),
    ("clock", "clock_offset_ms"),
    ("rch-wkr", "rch_wkr"),
)
"""Label and the key of the probe's answer, in the order of the table; an absent tool reads "not installed"."""

TOOLS = frozenset({"rustc", "cargo", "gcc", "clang", "zstd", "rsync"})
BYTES = frozenset({"memory_bytes", "disk_free"})
PLANES = (("control", "Fabric connection, rch-wkr"), ("bulk", "rsync over ssh"))


def probe_lines(answer: Mapping[str, Any]) -> list[str]:
    """The table of one worker."""
    name = str(answer.get("name", "?"))
    verdict = "ok" if answer.get("ok") else f"not ok: {answer.get('message') or 'see below'}"
    lines = [f"{name}: {verdict}"]
    if answer.get("hint") and not answer.get("ok"):
        lines.append(f"  next         {answer['hint']}")
    planes = answer.get("planes") or {}
    for plane, what in PLANES:
        if plane in planes:
            lines.append(f"  {plane:<12} {_plane(planes[plane])} ({what})")
    lines.extend(f"  note         {text}" for text in one_plane_only(planes))
    for label, key in ROWS:
        if key in answer:
            lines.append(f"  {label:<12} {_shown(key, answer[key])}")
    return lines


def one_plane_only(planes: Mapping[str, Any]) -> list[str]:
    """What only one of the two planes can do, in words (lessons DS-11)."""
    good = {plane: bool((planes.get(plane) or {}).get("ok")) for plane, _ in PLANES if plane in planes}
    if len(good) < len(PLANES) or len(set(good.values())) == 1:
        return []
    works = next(plane for plane, ok in good.items() if ok)
    fails = next(plane for plane, ok in good.items() if not ok)
    why = (planes.get(fails) or {}).get("message") or "no reason given"
    return [f"only the {works} plane gets in, the {fails} plane does not: {why}"]


def _plane(found: Any) -> str:
    if not isinstance(found, Mapping):
        return str(found)
    if found.get("ok"):
        rtt = found.get("rtt_ms")
        return "ok" if rtt is None else f"ok, {float(rtt):.1f} ms"
    hint = f"; next: {found['hint']}" if found.get("hint") else ""
    return f"fails: {found.get('message') or 'no reason given'}{hint}"


def _shown(key: str, value: Any) -> str:
    if value in (None, ""):
        return "not installed" if key in TOOLS else "unknown"
    if key in BYTES and isinstance(value, (int, float)):
        return size(value)
    if key == "clock_offset_ms" and isinstance(value, (int, float)):
        return f"{value:+.1f} ms"
    if key == "sandbox" and isinstance(value, Mapping):
        return "ok" if value.get("ok") else f"none: {value.get('why') or 'unknown'}"
    return str(value).splitlines()[0][:200] if str(value) else "unknown"
