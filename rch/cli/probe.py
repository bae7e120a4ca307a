"""What ``rch workers probe`` shows of rchd's answer (coverage D-14)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rch.cli.terminal import size

TOOLS = ("rustc", "cargo", "gcc", "clang", "zstd", "rsync", "bwrap")
"""Programs whose version is shown; "not installed" where absent."""

TOOLCHAINS = {"rustc": "rust", "gcc": "c"}
"""Programs that the facts know by their toolchain."""

PLANES = (("control", "requests"), ("bulk", "files"))


def probe_lines(answer: Mapping[str, Any]) -> list[str]:
    """The table of one worker, from the answer of ``POST /v1/workers/NAME/probe``."""
    verdict = "ok" if answer.get("ok") else f"not ok: {failure(answer)}"
    rows = [(plane, f"{_plane(answer[plane])} ({what})") for plane, what in PLANES if plane in answer]
    rows += [("note", text) for text in one_plane_only(answer)]
    rows += _facts(answer)
    return [f"{answer.get('name', '?')}: {verdict}", *(f"  {label:<10} {text}" for label, text in rows)]


def failure(answer: Mapping[str, Any]) -> str:
    """Why the probe is not ok, in one line."""
    for plane, _ in PLANES:
        found = answer.get(plane)
        if isinstance(found, Mapping) and not found.get("ok"):
            return _plane(found).removeprefix("fails: ")
    return str(answer.get("message") or "no reason given")


def one_plane_only(answer: Mapping[str, Any]) -> list[str]:
    """What only one of the two planes can do, in words (lessons DS-11)."""
    good = {plane: bool(answer[plane].get("ok")) for plane, _ in PLANES if isinstance(answer.get(plane), Mapping)}
    if len(good) < len(PLANES) or len(set(good.values())) == 1:
        return []
    works = next(plane for plane, ok in good.items() if ok)
    fails = next(plane for plane, ok in good.items() if not ok)
    if str(answer[fails].get("error", "")).startswith("not tried"):
        return []
    return [f"only the {works} plane gets in, the {fails} plane does not: {answer[fails].get('error')}"]


def _facts(answer: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = _mapping(answer.get("facts"))
    health = _mapping(answer.get("health"))
    if not facts and not health:
        return []
    rows: list[tuple[str, str]] = [
        ("system", _system(facts)),
        ("cores", str(facts.get("cores", "unknown"))),
        ("memory", size(_number(health.get("mem_total", facts.get("memory_bytes"))))),
        ("disk free", size(_number(health.get("disk_free", facts.get("disk_free"))))),
    ]
    rows += [(tool, _program(tool, facts)) for tool in TOOLS]
    sandbox = _mapping(answer.get("sandbox"))
    offset = _number(answer.get("clock_offset_ms"))
    rows += [
        ("python", str(answer.get("python", "unknown"))),
        ("sandbox", "ok" if sandbox.get("ok") else f"none: {sandbox.get('why') or 'unknown'}"),
        ("clock", "unknown" if offset is None else f"{offset:+.1f} ms"),
        ("rch-wkr", f"{answer.get('version', 'unknown')}, protocol {answer.get('protocol', 'unknown')}"),
    ]
    return [(label, _tidy(text) or "unknown") for label, text in rows]


def _tidy(text: str) -> str:
    """The first line of *text* without what programs put around and into it for looks (``*** Zstandard CLI … ***``)."""
    return " ".join(text.partition("\n")[0].strip("* ").split())[:200]


def _program(tool: str, facts: Mapping[str, Any]) -> str:
    """The version of *tool* there: what its toolchain says of itself, else what the program said."""
    from rch.fleet.toolchains import shown

    version = shown(facts).get(TOOLCHAINS.get(tool, "")) or _mapping(facts.get("programs")).get(tool)
    if not version and tool == "cargo":  # outside PATH, in the directory of its toolchain
        rows = _mapping(facts.get("toolchains")).get("rust")
        row = _mapping(rows[0]) if isinstance(rows, list) and rows else {}
        parts = row.get("components")
        version = f"with {row.get('shown', 'rustc')}" if isinstance(parts, list) and "cargo" in parts else None
    return str(version) if version else "not installed"


def _system(facts: Mapping[str, Any]) -> str:
    """As ``uname -a`` says it, and the distribution."""
    words = ["Linux", *(str(facts[key]) for key in ("hostname", "kernel", "machine") if facts.get(key))]
    distribution = _mapping(facts.get("os")).get("pretty_name")
    return " ".join(words) + (f" ({distribution})" if distribution else "")


def _plane(found: Mapping[str, Any]) -> str:
    if found.get("ok"):
        seconds = _number(found.get("seconds"))
        return "ok" if seconds is None else f"ok, {seconds:.2f} s"
    hint = str(found.get("hint") or "")
    # To look once more is no advice to somebody who has just looked.
    tail = f"; next: {hint}" if hint and not hint.startswith("rch workers probe") else ""
    return f"fails: {found.get('error') or 'no reason given'}{tail}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
