"""A Decision for people and for programs: what ``rch explain`` prints. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rch.intercept.argv import Aliases, no_aliases
from rch.intercept.decision import Decision, Policy, Segment, Verdict
from rch.intercept.line import decide

Stays = Callable[[Segment], tuple[str, str]]
"""Why the project of an offload, as it lies here, would keep it here all the same: code and detail, "" for nothing."""


def nothing_known(_segment: Segment) -> tuple[str, str]:
    """For callers that do not look at the project."""
    return "", ""


def explain_json(
    command: str | bytes,
    cwd: str,
    policy: Policy,
    env: Mapping[str, str] = {},
    *,
    aliases: Aliases = no_aliases,
    stays: Stays = nothing_known,
) -> dict[str, Any]:
    """The object of ``rch explain --json``: command, decision, rewritten, segments.

    A segment has start and end (byte offsets in the UTF-8 of command), text, kind (a name or None), decision,
    confidence (0 to 1), tier (0 to 4), reason (a code, "" for an offload) and detail (the same for people).
    would_stay is the code with which ``rch exec`` would run an offload here all the same because of its project as it
    lies here, "" where nothing is known against it; detail has the words.
    """
    decision = decide(command, cwd, policy, env, aliases=aliases)
    return {
        "command": decision.command,
        "decision": decision.verdict.value,
        "rewritten": decision.rewritten,
        "segments": [_segment_json(segment, stays) for segment in decision.segments],
    }


def _segment_json(segment: Segment, stays: Stays) -> dict[str, Any]:
    code, why = stays(segment) if segment.verdict is Verdict.OFFLOAD else ("", "")
    return {
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "kind": segment.kind.name if segment.kind else None,
        "decision": segment.verdict.value,
        "confidence": segment.confidence,
        "tier": segment.tier,
        "reason": segment.reason,
        "detail": segment.detail or why,
        "would_stay": code,
    }


def explain_text(
    command: str | bytes,
    cwd: str,
    policy: Policy,
    env: Mapping[str, str] = {},
    *,
    aliases: Aliases = no_aliases,
    stays: Stays = nothing_known,
) -> str:
    """The same for people: the line with its builds in brackets, one line per segment, the rewritten line."""
    decision = decide(command, cwd, policy, env, aliases=aliases)
    lines = _marked(decision).splitlines() or [""]
    for segment in decision.segments:
        lines.append(f"  {_shown(segment)}")
        code, why = stays(segment) if segment.verdict is Verdict.OFFLOAD else ("", "")
        if code:
            lines.append(f"    └ would be local  {code}: {why}")
    changed = decision.rewritten != decision.command
    lines.extend((f"rewritten: {_shortened(decision.rewritten)}" if changed else "not rewritten").splitlines())
    return "\n".join(_printable(line) for line in lines)


def _marked(decision: Decision) -> str:
    if decision.verdict is Verdict.LOCAL:
        return _shortened(decision.command)
    data = decision.command.encode("utf-8", "surrogatepass")
    parts: list[bytes] = []
    at = 0
    for segment in decision.segments:
        if segment.verdict is Verdict.OFFLOAD and segment.start >= at:
            parts.extend((data[at : segment.start], b"[", data[segment.start : segment.end], b"]"))
            at = segment.end
    return b"".join((*parts, data[at:])).decode("utf-8", "replace")


def _shown(segment: Segment) -> str:
    text = _shortened(segment.text.replace("\n", " "))
    if segment.verdict is Verdict.OFFLOAD and segment.kind is not None:
        return f"{text}  └ offload  {segment.kind.name}  {_confidence(segment)}  tier {segment.tier}"
    detail = f": {segment.detail}" if segment.detail else ""
    return f"{text}  └ local  {segment.reason}{detail} (tier {segment.tier})"


def _confidence(segment: Segment) -> str:
    """The value and its parts (coverage B-3)."""
    base = segment.kind.confidence if segment.kind else 0.0
    more = round(segment.confidence - base, 2)
    return f"{segment.confidence:.2f} ({base:.2f} + {more:.2f} optimised)" if more else f"{segment.confidence:.2f}"


def _shortened(text: str, most: int = 400) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def _printable(line: str) -> str:
    """No control character of the command reaches the terminal."""
    return "".join(letter if letter.isprintable() else "�" for letter in line)
