"""A hook's stdin -> a hook's stdout: question, decision, the user's rules, answer."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from rch.agents.caller import Caller
from rch.agents.dialect import Question, no_opinion, read_question, write_answer
from rch.agents.permission import stance
from rch.agents.rules import rules_of
from rch.errors import ConfigError
from rch.intercept import decide
from rch.intercept.argv import Aliases, no_aliases
from rch.intercept.decision import Policy, Segment
from rch.intercept.switch import local_reason


@dataclass(frozen=True)
class Answer:
    """What the hook prints, and why, for the log and for ``rch hook test``."""

    data: bytes
    why: str
    rewritten: str = ""


def answer(
    data: bytes,
    named: str,
    caller: Caller,
    *,
    policy_of: Callable[[str, Caller], Policy],
    prefix: str,
    has_shims: Callable[[Question, Caller], bool] = lambda _question, _caller: False,
    aliases: Aliases = no_aliases,
) -> Answer:
    """Answer the hook that was given *data*.

    named:     the harness that the installed command names.
    policy_of: (cwd, caller) -> the Policy there; may raise. A wrong configuration counts as none.
    prefix:    what goes before a build: ``/abs/rch exec -- ``.
    has_shims: does the shell that will run the command find the shims? Then only what names its tool by a path is
               rewritten: the text that the user's rules see stays what it was.
    aliases:   answers cargo's aliases in a directory.
    Never widens what the user allowed; whatever goes wrong is "no opinion".
    """
    silent = no_opinion(named)
    question = read_question(data, named, caller.env)
    if question is None:
        return Answer(silent, "no question about a shell command")
    silent = no_opinion(question.harness)
    if local_reason(caller.env) not in ("", "local-only", "bad-environment"):
        return Answer(silent, "switched off")
    try:
        policy = policy_of(question.cwd, caller)
    except ConfigError:  # `rch exec` says what is wrong and where, and runs the build here (coverage A-5)
        policy = Policy()
    try:
        decision = decide(question.command, question.cwd, policy, caller.env, aliases=aliases, prefix=prefix)
    except ValueError as error:
        return Answer(silent, str(error))
    rewritten = decision.rewritten
    if rewritten == question.command:
        return Answer(silent, "nothing to send out")
    if has_shims(question, caller):
        rewritten = _only_paths(question.command, decision.segments, prefix)
        if rewritten == question.command:
            return Answer(silent, "the shims see it")
    found = stance(question.command, rules_of(question.harness, question.mode, question.cwd, caller, question.rules))
    if not found.rewrite:
        return Answer(silent, f"left alone: {found.why}")
    return Answer(write_answer(question, rewritten, allowed=found.allowed, env=caller.env), found.why, rewritten)


def path_has_shims(path: str, mark: str) -> bool:
    """Is a directory of shims in the PATH *path*?"""
    return any(place and os.path.exists(os.path.join(place, mark)) for place in path.split(":"))


def _only_paths(command: str, segments: tuple[Segment, ...], prefix: str) -> str:
    """*command* with *prefix* before those builds alone whose program no PATH finds: it is named by a path."""
    data = command.encode("utf-8")
    places = sorted(
        segment.start for segment in segments if segment.goes_through_rch and "/" in segment.text.split()[0]
    )
    for place in reversed(places):
        data = data[:place] + prefix.encode("ascii") + data[place:]
    return data.decode("utf-8")
