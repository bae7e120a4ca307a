"""Questions to a person. Where nobody can answer, one line says so; nothing waits for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from rch.errors import UsageError

_Answer = TypeVar("_Answer")


def confirm(question: str, *, default: bool = False) -> bool:
    """Yes or no; raises UsageError when stdin ends without an answer."""
    return answered(lambda: click.confirm(question, default=default, err=True))


def answered(ask: Callable[[], _Answer]) -> _Answer:
    """What *ask*, a prompt of click's, came to; UsageError instead of Abort when stdin is at its end."""
    try:
        return ask()
    except click.Abort as error:
        if isinstance(error.__context__, EOFError):
            click.echo(err=True)  # the question stands on the line
            hint = "answer it at a terminal, or --yes where the command has that"
            raise UsageError("a question got no answer: stdin is at its end", what="stdin", hint=hint) from None
        raise
