"""Click's classes with our habits: ``-v -q --json`` anywhere, subcommands loaded when they are called."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any, cast

import click
from typing_extensions import override

from rch.cli.terminal import Output
from rch.client_options import TRUE_WORDS
from rch.errors import UsageError


def output() -> Output:
    """The Output of the command that runs."""
    return click.get_current_context().find_root().ensure_object(Output)


def is_on(name: str) -> bool:
    """Is the switch *name* set in the environment? What it must not hold is the configuration's to say."""
    return os.environ.get(name, "").lower() in TRUE_WORDS


def _note(name: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(context: click.Context, _: click.Parameter, value: bool) -> None:  # click's signature
        if value:
            setattr(context.find_root().ensure_object(Output), name, True)

    return callback


def _common_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["-v", "--verbose"], is_flag=True, expose_value=False, callback=_note("verbose"), help="Say more on stderr."
        ),
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            callback=_note("quiet"),
            help="Say nothing on stderr but errors.",
        ),
        click.Option(
            ["--json"], is_flag=True, expose_value=False, callback=_note("json"), help="Print JSON on stdout."
        ),
    ]


class RchCommand(click.Command):
    """A command that takes ``-v -q --json`` too."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params.extend(_common_options())

    @override
    def invoke(self, ctx: click.Context) -> Any:
        chosen = ctx.find_root().ensure_object(Output)
        if chosen.quiet and chosen.verbose:
            raise UsageError("--quiet and --verbose exclude one another", what="--quiet --verbose")
        if not (chosen.quiet or chosen.verbose):  # a flag beats both variables, quiet beats verbose (coverage A-10)
            chosen.quiet = is_on("RCH_QUIET")
            chosen.verbose = not chosen.quiet and is_on("RCH_VERBOSE")
        return super().invoke(ctx)


class RchGroup(click.Group):
    """A group whose subcommands live in modules of their own, imported when one is called or listed.

    ``lazy`` maps a subcommand's name to "module:attribute".
    """

    command_class = RchCommand

    def __init__(self, *arguments: Any, lazy: dict[str, str] | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.lazy = lazy or {}
        self.params.extend(_common_options())

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.lazy, *(name for name in super().list_commands(ctx) if name not in self.lazy)]

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = self.lazy.get(cmd_name)
        if place is None:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = place.partition(":")
        return cast("click.Command", getattr(importlib.import_module(module), attribute))

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            import difflib

            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            if close:
                raise click.UsageError(f"No such command {args[0]!r}. Did you mean {close[0]}?", ctx) from None
            raise


RchGroup.group_class = RchGroup
