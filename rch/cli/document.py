"""docs/cli.md, made from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator

import click

from rch.cli.main import rch

WIDTH = 98
"""Columns: what click gives to help on a terminal of 100."""

_HEAD = """\
# Command line

<!-- Made from the commands by `python -m rch.cli.document`. -->

`rch exec`, the hooks and the shims are the thin client's and have pages of their own; this page is about the management
commands. stdout is data, stderr is talk. `-v`, `-q` and `--json` may stand before or after the subcommand. Text is for
people: coloured and boxed on a terminal only, `NO_COLOR` respected; programs read `--json`.

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

A job is `{"id", "state", "products", "worker", "kind", "command", "cwd", "exit_status", "signal", "reason", "slots",
"pushed", "returned", "times"}`, a worker `{"name", "host", "state", "slots_total", "slots_used", "speed_score", "tags",
"toolchains", "last_heartbeat", "active_jobs", "reason"}`. More keys may come; these stay.
"""


def page() -> str:
    """The page: every command with its help, in the order of ``rch --help``."""
    parts = [_HEAD]
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
