"""``rch explain``: the decision about a line, segment by segment, and why."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from rch.cli.command import RchCommand, output
from rch.cli.setting import here, load
from rch.cli.terminal import Output, printable
from rch.errors import UsageError

if TYPE_CHECKING:
    from rch.config.merged import Config
    from rch.intercept.decision import Decision


@click.command(cls=RchCommand, context_settings={"ignore_unknown_options": True})
@click.option("--batch", is_flag=True, help="Read one command per line from stdin.")
@click.argument("cmd", nargs=-1, type=click.UNPROCESSED)
def explain(*, batch: bool, cmd: tuple[str, ...]) -> None:
    """Say of CMD what would be sent to a worker, what stays here, and why.

    One word is a whole shell line; several words are one command with its arguments. With --json one object, with
    --batch --json one object a line.
    """
    said = output()
    config = load()
    if batch:
        if cmd:
            raise UsageError("--batch reads the commands from stdin", what="--batch")
        for line in sys.stdin:
            _show(said, decide((line.rstrip("\n"),), config), batch=True)
        return
    if not cmd:
        raise UsageError("nothing to explain", what="CMD", hint="rch explain 'cargo build 2>&1 | tail'")
    _show(said, decide(cmd, config), batch=False)


def decide(words: tuple[str, ...], config: Config) -> Decision:
    """The Decision over a shell line (one word) or over one command (several)."""
    if len(words) > 1:
        return decide_argv(words, config)
    from rch import intercept
    from rch.config.policy import policy_of

    by_line = getattr(intercept, "classify_line", None)
    if by_line is not None:
        found: Decision = by_line(words[0], here(), policy_of(config))
        return found
    if any(mark in words[0] for mark in "|&;<>()$`\n"):
        raise UsageError(
            "whole shell lines are not read by this version; give one command",
            what=words[0],
            hint="rch explain -- cargo build",
        )
    try:
        split = tuple(shlex.split(words[0]))
    except ValueError as error:
        raise UsageError(f"cannot be read as one command: {error}", what=words[0]) from error
    return decide_argv(split, config)


def decide_argv(words: tuple[str, ...], config: Config) -> Decision:
    """The Decision over one command; its offsets are those of the command quoted for a shell."""
    from rch.config.policy import policy_of
    from rch.intercept import classify_argv
    from rch.intercept.decision import Decision, Verdict

    segment = classify_argv(words, here(), policy_of(config), env=os.environ)
    command = shlex.join(words)
    rewritten = command
    if segment.verdict is Verdict.OFFLOAD:
        raw = command.encode("utf-8", "surrogateescape")
        cut = raw[: segment.start] + b"rch exec -- " + raw[segment.start :]
        rewritten = cut.decode("utf-8", "surrogateescape")
    return Decision(command=command, verdict=segment.verdict, segments=(segment,), rewritten=rewritten)


def document(decision: Decision) -> dict[str, Any]:
    """The JSON object of design.md 6.1."""
    return {
        "command": decision.command,
        "decision": decision.verdict.value,
        "rewritten": decision.rewritten,
        "segments": [
            {
                "start": one.start,
                "end": one.end,
                "text": one.text,
                "kind": one.kind.name if one.kind else None,
                "decision": one.verdict.value,
                "confidence": one.confidence,
                "tier": one.tier,
                "reason": one.reason,
            }
            for one in decision.segments
        ],
    }


def _show(said: Output, decision: Decision, *, batch: bool) -> None:
    found = document(decision)
    if said.json:
        if batch:
            said.record(found)
        else:
            said.document(found)
        return
    details = {(one.start, one.end): one.detail for one in decision.segments}
    print(printable(found["command"]))
    for one in found["segments"]:
        print(printable("  " + _segment(one, details[(one["start"], one["end"])])))
    if found["rewritten"] != found["command"]:
        print(printable(f"rewritten: {found['rewritten']}"))


def _segment(one: Mapping[str, Any], detail: str) -> str:
    head = f"[{one['text']}] {one['decision']}"
    if one["decision"] == "offload":
        return f"{head}  {one['kind']}  {one['confidence']:.2f}  tier {one['tier']}"
    return f"{head}  {one['reason']}{': ' + detail if detail else ''}  (tier {one['tier']})"
