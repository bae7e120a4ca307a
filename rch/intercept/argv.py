"""argv, cwd, policy -> Segment: the one judgement of a simple command. Standard library only, no I/O."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from itertools import takewhile

from rch.intercept.decision import Kind, Policy, Segment, Verdict
from rch.intercept.switch import local_reason
from rch.intercept.wordlist import KEEPING_WRAPPERS, REJECT_WORDS, SHELLS, UNSUPPORTED_TOOLS
from rch.intercept.wrapper import WRAPPERS, program_name, unwrap
from rch.toolchains import TOOLCHAINS, toolchain_of
from rch.toolchains.option import UNKNOWN
from rch.toolchains.rule import Build, Call, Stay, Toolchain

Aliases = Callable[[str], Mapping[str, tuple[str, ...]]]
"""Directory -> cargo's aliases there (name -> words), read by the caller; asked only where a name may be one."""


def no_aliases(_cwd: str) -> Mapping[str, tuple[str, ...]]:
    """For callers that know of none."""
    return {}


KEYWORDS = tuple(dict.fromkeys((*(word for tool in TOOLCHAINS for word in tool.keywords), *UNSUPPORTED_TOOLS)))
"""Texts of which every line that calls a build tool has one; the hooks look for them before they ask anybody."""


def might_build(text: str) -> bool:
    """Tier 2: False when no build word occurs anywhere in *text*."""
    return any(word in text for word in KEYWORDS)


class Judged:
    """What :func:`judge_words` found: the fields of a Segment that do not depend on where the words stand.

    at: index of the first word of the build (or of the command behind its wrappers).
    env: what its wrappers set for it. moved: they change its directory.
    """

    __slots__ = ("at", "confidence", "detail", "env", "kind", "moved", "reason", "tier", "verdict")

    def __init__(
        self,
        at: int,
        tier: int,
        reason: str,
        detail: str,
        *,
        verdict: Verdict = Verdict.LOCAL,
        kind: Kind | None = None,
        confidence: float = 0.0,
        env: Mapping[str, str] = {},
        moved: bool = False,
    ) -> None:
        self.at = at
        self.env = env
        self.moved = moved
        self.tier = tier
        self.reason = reason
        self.detail = detail
        self.verdict = verdict
        self.kind = kind
        self.confidence = confidence


def judge_words(
    words: Sequence[str],
    cwd: str,
    policy: Policy,
    *,
    env: Mapping[str, str] = {},
    aliases: Aliases = no_aliases,
    moved: bool = False,
) -> Judged:
    """Judge one simple command by the five tiers.

    words: the command's words, wrappers included, leading assignments not; unknown parts as UNKNOWN.
    env:   the caller's environment and the leading assignments; only RCH_ switches are read.
    moved: the line has changed the directory before this command, and does not say where to.
    """
    unwrapped = unwrap(words)
    at = unwrapped.at
    if at >= len(words):
        return Judged(0, 0, "not-a-build", "no command")
    if unwrapped.keeps:
        behind = kept_build(words[at:])
        if behind and unwrapped.keeps not in REJECT_WORDS:
            return Judged(at, 3, "wrapper", f"{behind} stands behind {unwrapped.keeps}")
        return Judged(
            at, 0 if unwrapped.keeps in REJECT_WORDS else 2, "not-a-build", f"{unwrapped.keeps} builds nothing"
        )
    if unwrapped.unsure:
        behind = first_build(words[at + 1 :])
        if behind:
            return Judged(at, 3, "wrapper", f"{behind} stands behind {unwrapped.unsure}")
        return Judged(at, 2, "not-a-build", "no build word")
    word = words[at]
    program = program_name(word)
    if UNKNOWN in program or not program:
        return Judged(at, 1, "structure", "which program runs is not known before the shell runs it")
    if program in REJECT_WORDS:
        return Judged(at, 0, "not-a-build", f"{program} builds nothing")
    tool = toolchain_of(program)
    if tool is None:
        if program in UNSUPPORTED_TOOLS:
            return Judged(at, 4, "unsupported-tool", f"{program} is not supported")
        return Judged(at, 2, "not-a-build", "no build word")
    moved = moved or unwrapped.moved
    env = {**env, **unwrapped.assignments} if unwrapped.assignments else env
    call = Call(
        program,
        tuple(words[at + 1 :]),
        cwd,
        partial(no_aliases if moved else aliases, cwd),
        policy.run_tests,
        moved,
    )
    judged = _by_toolchain(tool, call, at, env, policy)
    judged.env, judged.moved = unwrapped.assignments, unwrapped.moved
    return judged


def _by_toolchain(tool: Toolchain, call: Call, at: int, env: Mapping[str, str], policy: Policy) -> Judged:
    answer = tool.judge(call)
    if isinstance(answer, Stay):
        return Judged(at, answer.tier, answer.reason, answer.detail)
    if not policy.toolchains.get(tool.name, tool.on_by_default):
        return Judged(at, 3, "toolchain-off", f"interception.toolchains.{tool.name} is off", kind=answer.kind)
    pattern = _excluding(policy.exclude, (call.program, *call.words))
    if pattern:
        return Judged(at, 3, "excluded", f"interception.exclude has {pattern!r}", kind=answer.kind)
    if answer.kind.run_locally_after and not policy.full_return:
        detail = "it would be built again here, for artifacts.build_dir does not return everything"
        return Judged(at, 3, "not-worth-it", detail, kind=answer.kind)
    confidence = confidence_of(answer.kind, call.words)
    own_rule = answer.own_rule and policy.structure != "strict"
    if confidence < policy.confidence_threshold and not own_rule:
        detail = f"confidence {confidence:.2f} is below the threshold {policy.confidence_threshold:.2f}"
        return Judged(at, 4, "below-threshold", detail, kind=answer.kind, confidence=confidence)
    return _switched(at, answer, confidence, env, policy)


def _switched(at: int, answer: Build, confidence: float, env: Mapping[str, str], policy: Policy) -> Judged:
    reason = local_reason(env, enabled=policy.enabled, local_only=policy.local_only)
    if reason:
        detail = (
            "an RCH_ variable has a value that is neither on nor off" if reason == "bad-environment" else "switched"
        )
        return Judged(at, 0, reason, detail, kind=answer.kind, confidence=confidence)
    return Judged(at, 4, "", "", verdict=Verdict.OFFLOAD, kind=answer.kind, confidence=confidence)


def classify_argv(
    argv: Sequence[str],
    cwd: str,
    policy: Policy,
    *,
    env: Mapping[str, str] = {},
    aliases: Aliases = no_aliases,
) -> Segment:
    """Judge a command that is already split into words: shim, ``rch exec``, rchd.

    cwd:     absolute.        env: the caller's environment; only the RCH_ switches are read.
    Returns a Segment whose text is the words quoted for a shell, whose argv are the build's own words, wrappers
    removed, and whose start and end say where those lie in ``shlex.join(argv)``. Never raises.
    """
    words = [word if UNKNOWN not in word else word.replace(UNKNOWN, "�") for word in argv]
    judged = judge_words(words, cwd, policy, env=env, aliases=aliases)
    text = shlex.join(words[judged.at :])
    before = _size(shlex.join(words[: judged.at]))
    start = before + 1 if judged.at else 0
    return Segment(
        start=start,
        end=start + _size(text),
        text=text,
        verdict=judged.verdict,
        kind=judged.kind,
        confidence=judged.confidence,
        tier=judged.tier,
        reason=judged.reason,
        detail=judged.detail,
        argv=tuple(argv[judged.at :]),
    )


def _size(text: str) -> int:
    """Bytes of *text*, whatever stands in it."""
    try:
        return len(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return len(text.encode("utf-8", "surrogatepass"))


def confidence_of(kind: Kind, words: Sequence[str]) -> float:
    """The kind's confidence, and .05 more for an optimised build (coverage B-3)."""
    before = words[: words.index("--")] if "--" in words else words
    optimised = any(word == "--release" or word.startswith("-O") for word in before)
    return min(1.0, round(kind.confidence + (0.05 if optimised else 0.0), 2))


def _excluding(patterns: Sequence[str], words: Sequence[str]) -> str:
    for pattern in patterns:
        parts = pattern.split()
        if parts and len(parts) <= len(words) and all(map(fnmatchcase, words, parts)):
            return pattern
    return ""


def first_build(words: Sequence[str]) -> str:
    """The first build tool called in *words* or in a text among them, or "": ``eval "cd x; make"`` names make."""
    for at, word in enumerate(words):
        parts = [part.strip(";&|(){}") for part in word.split()]
        if len(parts) == 1:
            parts.extend(words[at + 1 :])
            found = program_name(parts[0]) if _builds(parts) else ""
        else:
            found = next((program_name(part) for i, part in enumerate(parts) if _builds(parts[i:])), "")
        if found:
            return found
    return ""


def _builds(words: Sequence[str]) -> bool:
    """True if *words*, or the beginning of them, are a build, whatever stands around them."""
    program = program_name(words[0])
    if program in UNSUPPORTED_TOOLS:
        return True
    tool = toolchain_of(program)
    return tool is not None and isinstance(tool.judge(Call(program, tuple(words[1:]))), Build)


_OWN_OPERANDS = {
    **dict.fromkeys(("perf", "flock", "chroot", "nix", "mise", "asdf", "faketime", "chrt"), 1),
    **dict.fromkeys(("rustup", "direnv"), 2),  # rustup run nightly, direnv exec .
}
_FEEDS = frozenset({"xargs", "parallel"})


def kept_build(words: Sequence[str]) -> str:
    """The build tool that a keeping wrapper, ``words[0]``, starts, or "": ``sudo apt-get install make`` starts none."""
    wrapper = program_name(words[0])
    if wrapper == "find":
        return _found_build(words)
    operands = _OWN_OPERANDS.get(wrapper, 0)
    more = (UNKNOWN,) if wrapper in _FEEDS else ()  # they add operands that only they see
    after_option = False
    for at, word in enumerate(words[1:], 1):
        if word.startswith("-"):
            after_option = True
        elif "=" in word and not word.startswith("="):
            continue
        else:
            name = program_name(word)
            if _builds((*words[at:], *more)):
                return name
            if " " in word or name in WRAPPERS or name in KEEPING_WRAPPERS or name in SHELLS:
                return first_build(words[at:])
            if operands:
                operands -= 1
            elif not after_option:
                return ""
            after_option = False
    return ""


def _found_build(words: Sequence[str]) -> str:
    """The build tool that find starts for what it finds, or ""."""
    for at, word in enumerate(words):
        if word not in ("-exec", "-execdir", "-ok", "-okdir"):
            continue
        started = [
            UNKNOWN if "{}" in one else one for one in takewhile(lambda one: one not in (";", "+"), words[at + 1 :])
        ]
        if not started:
            continue
        name = program_name(started[0])
        if _builds(started):
            return name
        if name in WRAPPERS or name in KEEPING_WRAPPERS or name in SHELLS:
            return first_build(started[1:])
    return ""
