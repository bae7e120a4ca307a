"""``rch``: the management commands. ``rch exec``, hooks and shims are the thin client's and never come here."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

import click

from rch import __version__
from rch.cli.command import RchCommand, RchGroup
from rch.cli.terminal import printable
from rch.client_options import USAGE
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
    "fleet": "rch.cli.fleet:fleet",
    "benchmark": "rch.cli.benchmark:benchmark",
    "init": "rch.cli.init:init",
    "install": "rch.cli.install:install",
    "daemon": "rch.cli.daemon:daemon",
    "config": "rch.cli.config:config",
    "doctor": "rch.cli.doctor:doctor",
    "explain": "rch.cli.explain:explain",
    "hook": "rch.cli.hook:hook",
    "shim": "rch.cli.shim:shim",
    "shellenv": "rch.cli.shellenv:shellenv",
    "completion": "rch.cli.completion:completion",
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
    if command == ("exec",):  # the thin client's, which is no command of click's
        click.echo(USAGE, nl=False)
        return
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
    _fill_descriptors()
    status = _guarded(sys.argv[1:] if argv is None else list(argv))
    try:
        sys.stdout.flush()
    except OSError as error:
        return _lost_stdout(error)
    return status


def _guarded(argv: list[str]) -> int:
    try:
        return _run(argv)
    except RchError as error:
        print(printable(error.one_line()), file=sys.stderr)
        return error.exit_status
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:  # a group without a command: its help, as it is
        click.echo(error.format_message(), err=True)
        return UsageError.exit_status
    except click.ClickException as error:
        line = " ".join(error.format_message().split())
        context = getattr(error, "ctx", None)
        hint = f"; next: {context.command_path} --help" if context is not None else ""
        print(printable(f"rch: error[UsageError] {line}{hint}"), file=sys.stderr)
        return 2
    except (KeyboardInterrupt, click.Abort):
        return 130
    except OSError as error:
        if error.filename is None and error.errno in _LOST:
            return _lost_stdout(error)
        place = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
        return _failed("OSError", f"{place}{error.strerror or error}", "rch doctor")
    except Exception as error:  # noqa: BLE001 - the outer edge: a person gets one line, with RCH_VERBOSE=1 all of it
        if os.environ.get("RCH_VERBOSE"):
            import traceback

            traceback.print_exc()
        return _failed("internal", f"{type(error).__name__}: {error}", "RCH_VERBOSE=1 rch …, and report what it says")


def _run(argv: list[str]) -> int:
    if "_RCH_COMPLETE" in os.environ:  # a shell asks for completions
        rch.main(args=argv, prog_name="rch")
    # Not rch.main(): that one answers a broken pipe with exit status 1.
    with rch.make_context("rch", argv) as context:
        status = rch.invoke(context)
    return status if isinstance(status, int) else 0


_LOST = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EBADF, errno.EIO)
"""How a write to stdout fails; a file's error has a name."""


def _fill_descriptors() -> None:
    """Where stdout or stderr are closed, put something there: else the next file that is opened would be taken for it.

    Nothing can be written to this stdout, so that an answer which got lost is told.
    """
    for number, name, flags in ((1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, flags)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115 - for the process


def _lost_stdout(error: OSError) -> int:
    """The answer could not be written: end as the pipe would have ended us, or say so. Nothing is left to flush."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    if error.errno == errno.EPIPE:
        return 141
    label = "DiskFull" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "OSError"
    return _failed(label, f"stdout cannot be written ({error.strerror})", "df -h" if label == "DiskFull" else "")


def _failed(label: str, message: str, hint: str) -> int:
    line = " ".join(f"rch: error[{label}] {message}{f'; next: {hint}' if hint else ''}".split())
    print(printable(line), file=sys.stderr)
    return 1
