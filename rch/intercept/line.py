"""command text, cwd, policy -> Decision: every simple command judged alone, builds rewritten by byte range. No I/O."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rch.intercept._words import SimpleCommand
from rch.intercept.argv import Aliases, first_build, judge_words, might_build, no_aliases
from rch.intercept.decision import Decision, Policy, Segment, Verdict
from rch.intercept.shell import Line, read_line
from rch.intercept.wordlist import REJECT_PREFIXES, SHELLS
from rch.intercept.wrapper import program_name
from rch.toolchains.option import UNKNOWN

PREFIX = "rch exec -- "
"""What is put in front of a build's own words."""

_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+:,./- ")
_HELP = ("--help", "--version", " -h", " -V")


def decide(
    command: str | bytes,
    cwd: str,
    policy: Policy,
    env: Mapping[str, str] = {},
    *,
    aliases: Aliases = no_aliases,
    prefix: str = PREFIX,
) -> Decision:
    """Judge a whole shell line and rewrite its builds.

    command: as the agent wrote it; bytes are UTF-8, anything else in them makes the line local.
    cwd:     absolute directory in which the line starts.
    env:     the caller's environment; only the RCH_ switches are read.
    aliases: answers cargo's aliases in a directory.
    prefix:  what goes before a build; ends in a blank and needs no quoting anywhere.
    Never raises for any command; ValueError for a prefix that would need quoting.
    """
    if not prefix.endswith(" ") or not _SAFE.issuperset(prefix):
        raise ValueError(f"prefix {prefix!r} would need quoting")
    text, data = _both(command)
    if data is None:
        return _whole(text, 1, "structure", "the line is not UTF-8")
    if policy.structure == "strict":
        rejected = _instant_reject(text)
        if rejected:
            return _whole(text, 0, "not-a-build", rejected)
    line = read_line(data)
    if line.trouble:
        if might_build(text):
            return _whole(text, 1, "structure", line.trouble)
        return _whole(text, 2, "not-a-build", "no build word")
    if not line.commands:
        return _whole(text, 0, "not-a-build", "no command")
    segments = tuple(_segment(one, data, cwd, policy, env, aliases) for one in line.commands)
    rewritten, certain = _rewrite(data, line, segments, prefix)
    if not certain:
        segments = tuple(_withdrawn(segment) for segment in segments)
    verdict = Verdict.OFFLOAD if any(one.verdict is Verdict.OFFLOAD for one in segments) else Verdict.LOCAL
    return Decision(text, verdict, segments, rewritten.decode("utf-8"))


def _both(command: str | bytes) -> tuple[str, bytes | None]:
    """The line as text and as UTF-8; None where it is not UTF-8."""
    if isinstance(command, bytes):
        try:
            return command.decode("utf-8"), command
        except UnicodeDecodeError:
            return command.decode("utf-8", "surrogateescape"), None
    try:
        return command, command.encode("utf-8")
    except UnicodeEncodeError:
        return command, None


def _whole(text: str, tier: int, reason: str, detail: str) -> Decision:
    """A line that is local as a whole."""
    length = len(text.encode("utf-8", "surrogatepass")) if not text.isascii() else len(text)
    segment = Segment(0, length, text, Verdict.LOCAL, None, 0.0, tier, reason, detail)
    return Decision(text, Verdict.LOCAL, (segment,), text)


def _instant_reject(text: str) -> str:
    """Tier 0 of the seed, literally: why the line is rejected, or ""."""
    stripped = text.lstrip()
    if not stripped:
        return "empty"
    prefix = next((prefix for prefix in REJECT_PREFIXES if stripped.startswith(prefix)), "")
    if prefix:
        return f"begins with {prefix.strip()!r}"
    asks = next((option for option in _HELP if option in stripped), "")
    return f"contains {asks.strip()}" if asks else ""


def _segment(
    command: SimpleCommand,
    data: bytes,
    cwd: str,
    policy: Policy,
    env: Mapping[str, str],
    aliases: Aliases,
) -> Segment:
    words = [word.text for word in command.words]
    there, moved = _follow(cwd, command.moves)
    judged = judge_words(
        words,
        there,
        policy,
        env={**env, **command.assignments} if command.assignments else env,
        aliases=aliases,
        moved=moved,
    )
    start, end = command.words[judged.at].start, command.words[-1].end
    argv = words[judged.at :]
    found = Segment(
        start=start,
        end=end,
        text=data[start:end].decode("utf-8"),
        verdict=judged.verdict,
        kind=judged.kind,
        confidence=judged.confidence,
        tier=judged.tier,
        reason=judged.reason,
        detail=judged.detail,
        argv=tuple(argv) if not any(UNKNOWN in word for word in argv) else (),
        cwd="" if moved or judged.moved else there,
        env={**command.assignments, **judged.env},
    )
    if found.goes_through_rch:
        doubt = command.doubt
        if not doubt and policy.structure == "strict" and not command.plain:
            doubt = "strict: only a simple command, or the first one before &&"
        return _doubtful(found, doubt) if doubt else found
    if found.reason == "not-a-build" and _hides_a_build(argv):
        return _doubtful(found, f"what {argv[0]} runs cannot be rewritten exactly")
    return found


def _doubtful(segment: Segment, detail: str) -> Segment:
    return replace(segment, verdict=Verdict.LOCAL, tier=1, reason="structure", detail=detail)


def _follow(cwd: str, moves: Sequence[str]) -> tuple[str, bool]:
    """The directory after *moves* as far as the line says it, and whether that is not all."""
    lost = False
    for move in moves:
        if UNKNOWN in move:
            lost = True
        elif move.startswith("/"):
            cwd, lost = move, False
        else:
            cwd = posixpath.normpath(posixpath.join(cwd, move))
    return cwd, lost


def _hides_a_build(argv: Sequence[str]) -> bool:
    """True for a shell or ``eval`` given text with a build in it: no build without a verdict (lessons IC-01)."""
    name = program_name(argv[0])
    return (name == "eval" or (name in SHELLS and any("c" in w for w in argv[1:] if w[:1] == "-" != w[1:2]))) and bool(
        first_build(argv[1:])
    )


def _rewrite(data: bytes, line: Line, segments: Sequence[Segment], prefix: str) -> tuple[bytes, bool]:
    """*data* with *prefix* before every build, and whether a second reading finds exactly that in it."""
    places = {segment.start for segment in segments if segment.goes_through_rch}
    if not places:
        return data, True
    inserted = prefix.encode("ascii")
    parts: list[bytes] = []
    at = 0
    for place in sorted(places):
        parts.extend((data[at:place], inserted))
        at = place
    rewritten = b"".join((*parts, data[at:]))
    again = read_line(rewritten)
    if again.trouble or len(again.commands) != len(line.commands):
        return data, False
    added = prefix.split()
    for before, after in zip(line.commands, again.commands, strict=True):
        wanted: list[str] = []
        for word in before.words:
            if word.start in places:
                wanted.extend(added)
            wanted.append(word.text)
        if [word.text for word in after.words] != wanted:
            return data, False
    return rewritten, True


def _withdrawn(segment: Segment) -> Segment:
    if not segment.goes_through_rch:
        return segment
    return _doubtful(segment, "the rewritten line would not read as the same commands")
