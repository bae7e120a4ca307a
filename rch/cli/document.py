"""docs/cli.md, made from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import click

from rch.cli.main import rch
from rch.client_options import USAGE

WIDTH = 98
"""Columns: what click gives to help on a terminal of 100."""

JOB = "id state products worker kind command cwd exit_status signal reason slots pushed returned times"
WORKER = "name host state slots_total slots_used speed_score tags toolchains last_heartbeat active_jobs reason"

LISTINGS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "rch status": ("object", "running uptime_seconds active_compilations total_compilations workers"),
        "rch queue": ("array", JOB),
        "rch jobs": ("array", JOB),
        "rch logs": ("object a line", "offset stream time text"),
        "rch workers list": ("array", WORKER),
        "rch workers probe": ("array", "name ok control bulk"),
        "rch workers discover": ("array", "name host port user identity_file source system cores rust c usable reason"),
        "rch inventory show": ("object", "digest sources workers"),
        "rch daemon status": ("object", "running pid socket state"),
        "rch config show": ("array", "key value origin file line"),
        "rch config validate": ("object", "valid files problems"),
        "rch doctor": ("array", "name status finding remedy fixable"),
        "rch explain": ("object", "command decision rewritten segments"),
        "rch hook status": ("object", "hook agents"),
        "rch shim status": ("object", "directory installed on_path shims missing stale"),
    }
)
"""What ``--json`` prints: one document, or one object a line, and the keys that are always there."""

_HEAD = """\
# Command line

<!-- Made from the commands by `python -m rch.cli.document`. -->

First `rch exec`, which is the thin client's, then the management commands. stdout is data, stderr is talk. `-v`, `-q`
and `--json` may stand before or after the subcommand. Text is for people: coloured and boxed on a terminal only,
`NO_COLOR` respected; programs read `--json`.

## Exit status

| status | meaning |
|---|---|
| 0 | done |
| 1 | failed; `rch status`, `rch daemon status`: rchd does not run; `rch doctor`: a check failed |
| 2 | usage, configuration, address |
| 3 | refused before anything was sent |
| 4 | unreachable: rchd does not run, or a worker does not answer |
| 5 | provisioning |
| 6 | no such job, session or machine |
| 102 | `rch wait`, `rch fetch`: the products were not delivered; `rch fetch JOB` completes them |
| 124 | the time limit |
| 128+n | death by signal n |

rch's own errors are one line on stderr: `rch: error[CLASS] what, where; next: a command to try`.

## JSON

These keys are always there and keep their meaning; more may come. `rch queue`, `rch jobs` and `workers[].active_jobs`
hold job objects, `rch status` and `rch workers list` worker objects. `active_compilations` counts jobs,
`last_heartbeat` is UTC in ISO 8601, null where nothing was heard; times of a job are seconds since 1970.
"""


def page() -> str:
    """The page: every command with its help, in the order of ``rch --help``."""
    rows = [f"| `{name}` | {shape} | {keys} |" for name, (shape, keys) in LISTINGS.items()]
    parts = [_HEAD, "| `--json` of | is an | with |", "|---|---|---|", *rows, ""]
    parts += ["## rch exec", "", "```text", USAGE.rstrip("\n"), "```", ""]
    for path, help_text in commands():
        parts += [f"## {path}", "", "```text", help_text, "```", ""]
    return "\n".join(parts).rstrip("\n") + "\n"


def commands() -> Iterator[tuple[str, str]]:
    """Every command, as typed, with its help."""
    names = ["-h", "--help"]
    context = click.Context(
        rch, info_name="rch", terminal_width=WIDTH, max_content_width=WIDTH, help_option_names=names
    )
    yield from _walk(rch, context)


def _walk(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    yield context.command_path, "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            below = click.Context(inner, info_name=name, parent=context, terminal_width=WIDTH, max_content_width=WIDTH)
            yield from _walk(inner, below)


def main() -> None:
    """Write the page of a checkout."""
    import os

    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    with open(os.path.join(top, "docs", "cli.md"), "w", encoding="utf-8") as stream:
        stream.write(page())


if __name__ == "__main__":
    main()
