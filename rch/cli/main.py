"""``rch``: the management commands. ``rch exec``, hooks and shims are the thin client's and never come here."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from rch import __version__
from rch.cli.command import RchCommand, RchGroup
from rch.cli.terminal import printable
from rch.errors import RchError, UsageError

COMMANDS = {
    "status": "rch.cli.status:status",
    "queue": "rch.cli.jobs:queue",
    "jobs": "rch.cli.jobs:jobs",
    "logs": "rch.cli.jobs:logs",
    "wait": "rch.cli.jobs:wait",
    "fetch": "rch.cli.jobs:fetch",
    "cancel": "rch.cli.jobs:cancel",
    "workers": "rch.cli.workers:workers",
    "inventory": "rch.cli.inventory:inventory",
    "daemon": "rch.cli.daemon:daemon",
    "config": "rch.cli.config:config",
    "doctor": "rch.cli.doctor:doctor",
    "explain": "rch.cli.explain:explain",
    "hook": "rch.cli.hook:hook",
    "shim": "rch.cli.shim:shim",
    "shellenv": "rch.cli.shellenv:shellenv",
    "help": "rch.cli.main:help_",
}

EPILOG = """\b
Run a command on a worker:  rch exec [--worker W|--tag T] [--require-remote] -- CMD…
Exit status: 0; 1 failed; 2 usage or configuration; 3 refused before sending; 4 unreachable;
5 provisioning; 6 no such job or machine. rch exec, rch wait JOB: the command's own.
"""


@click.group(
    cls=RchGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EPILOG,
)
@click.version_option(__version__, "--version", prog_name="rch", message="%(prog)s %(version)s")
def rch() -> None:
    """Run builds and tests on a fleet of workers, as if they had run here."""


@click.command("help", cls=RchCommand)
@click.argument("command", nargs=-1)
@click.pass_context
def help_(context: click.Context, command: tuple[str, ...]) -> None:
    """Show the help of COMMAND, or of rch."""
    root = context.find_root()
    found: click.Command = root.command
    within = root
    for word in command:
        inner = found.get_command(within, word) if isinstance(found, click.Group) else None
        if inner is None:
            raise UsageError(f"no command {' '.join(command)!r}", what=word, hint="rch help")
        within = click.Context(inner, info_name=word, parent=within)
        found = inner
    click.echo(found.get_help(within))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one management command and return its exit status; never raises, never shows a traceback of ours."""
    try:
        return _run(sys.argv[1:] if argv is None else list(argv))
    except RchError as error:
        print(printable(error.one_line()), file=sys.stderr)
        return error.exit_status
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        line = " ".join(error.format_message().split())
        context = getattr(error, "ctx", None)
        hint = f"; next: {context.command_path} --help" if context is not None else ""
        print(printable(f"rch: error[UsageError] {line}{hint}"), file=sys.stderr)
        return 2
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        # The reader of our stdout has gone; end as the pipe would have ended us, without a message at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:  # noqa: BLE001 - the outer edge: a person gets one line, with RCH_VERBOSE=1 all of it
        if os.environ.get("RCH_VERBOSE"):
            import traceback

            traceback.print_exc()
        text = (
            f"rch: error[internal] {type(error).__name__}: {error}; next: RCH_VERBOSE=1 rch …, and report what it says"
        )
        print(printable(" ".join(text.split())), file=sys.stderr)
        return 1


def _run(argv: list[str]) -> int:
    if "_RCH_COMPLETE" in os.environ:  # a shell asks for completions
        rch.main(args=argv, prog_name="rch")
    # Not rch.main(): that one answers a broken pipe with exit status 1.
    with rch.make_context("rch", argv) as context:
        status = rch.invoke(context)
    sys.stdout.flush()
    return status if isinstance(status, int) else 0
