"""docs/configuration.md and the example files, made from the schema."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from rch.config.keys import KeyRow, Path, dotted, expectation, key_rows, plain, tables
from rch.config.schema import RETIRED
from rch.config.switches import VARIABLES

MERGES = {
    "replace": "",
    "all": "Every file must say true.",
    "any": "One file that says true is enough.",
    "add": "The lists of all files add up.",
    "narrow": "A project's list narrows the user's.",
}
TRUSTS = {
    "": "",
    "full": 'A project\'s "full" counts once trusted.',
    "raise": "A project's larger value counts once trusted.",
    "on": "Switched on by a project once trusted.",
    "off": "Switched off by a project once trusted.",
    "auto": 'A project\'s "auto" over the user\'s "none" counts once trusted.',
}

EXAMPLE_NAMES = {
    "stages": "test",
    "profiles": "quick",
    "presets": "heavy",
    "templates": "agent",
    "slurm_by_tag": "heavy",
}
"""The names that examples give to entries of open tables."""

_HEAD = """\
# Configuration

<!-- Made from rch/config/schema.py and rch/config/switches.py by `python -m rch.config.document`. -->

TOML, a closed schema: an unknown key is an error that names the file, the line and the nearest known key. A higher
layer replaces a lower one key by key:

1. an option of the command
2. the environment
3. the project's `.rch/config.toml`
4. the user's `~/.config/rch/config.toml`
5. `/etc/rch/config.toml`
6. the default

`rch config show` prints every value with its origin. A changed file counts from the next command on.

Scope: **U** counts in the user's and the system file, **P** in a project's file, **P\\*** in a project's file once
`rch config trust` has been run for exactly these contents; until then the key has no effect and `rch config show` gives
its origin as `untrusted`.

A directory that holds `.rch/` is a project root and is looked for before `.git`. `.rch` of the home directory does not
count.

A file that does not validate: management commands exit 2; builds run here with the reason `bad-config`, or exit 2 where
remote is required.
"""

_ENVIRONMENT = """
## Environment

c: read by the client for each command; d: given to rchd when it starts; j: set by rch inside a job. Empty counts as
unset. A value that is off means exit 2 for management commands, and for builds the reason `bad-environment`.
RCH_ON_WORKER, RCH_BYPASS, RCH_ENABLED=0, RCH_LOCAL_ONLY: the first one that is set decides.

| variable | | value | effect |
|---|---|---|---|"""


def toml_value(value: Any) -> str:
    """*value* as TOML writes it on one line."""
    import json

    value = plain(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, dict):
        inner = ", ".join(f"{dotted((name,))} = {toml_value(item)}" for name, item in value.items())
        return "{ " + inner + " }" if inner else "{}"
    raise TypeError(f"TOML has no {type(value).__name__}")


def configuration_page() -> str:
    """docs/configuration.md."""
    parts = [_HEAD]
    for path, rows in _by_table():
        parts += [f"## [{dotted(path).replace('*', 'NAME')}]", "", _doc(path), ""]
        parts += ["| key | scope | default | value | effect |", "|---|---|---|---|---|"]
        parts += [_row(row) for row in rows]
        parts.append("")
    parts += ["## Retired keys", "", "| key | instead |", "|---|---|"]
    parts += [f"| `{name}` | {_cell(text)} |" for name, text in RETIRED.items()]
    parts.append(_ENVIRONMENT)
    parts += [f"| `{v.name}` | {v.who} | {_cell(v.expects)} | {_cell(v.effect)} |" for v in VARIABLES]
    return "\n".join(parts) + "\n"


def user_example() -> str:
    """examples/config.toml: every key of the user's file, with its default or an example."""
    head = (
        "# The user's configuration: ~/.config/rch/config.toml (or /etc/rch/config.toml for all users).\n"
        "# Every key, with its default; keys that have none show an example behind a `#`.\n"
        "# Made from the schema; docs/configuration.md says more.\n"
    )
    return head + "".join(_example(path, rows, "U", active=True) for path, rows in _by_table())


def project_example() -> str:
    """examples/project-config.toml: every key of a project's file, with an example where it has one."""
    head = (
        "# A project's configuration: .rch/config.toml at the project's root.\n"
        "# Every key that counts here. Keys marked (trust) have no effect before `rch config trust`.\n"
        "# Made from the schema; docs/configuration.md says more.\n"
    )
    return head + "".join(_example(path, rows, "P", active=True) for path, rows in _by_table())


def starting_file(scope: str) -> str:
    """What ``rch config init`` writes: every key of the scope ("U" or "P"), all of them commented out."""
    head = "# rch; every key is commented out and shows its default or an example. rch config show prints what holds.\n"
    return head + "".join(_example(path, rows, scope, active=False) for path, rows in _by_table())


def _by_table() -> Iterator[tuple[Path, list[KeyRow]]]:
    for path in tables():
        rows = [row for row in key_rows().values() if row.path[:-1] == path]
        if rows:
            yield path, rows


def _doc(path: Path) -> str:
    return " ".join((tables()[path].__doc__ or "").split())


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _row(row: KeyRow) -> str:
    default = row.shown_default or toml_value(row.default)
    if not row.shown_default or "<" in default:  # a bare <state> would be an HTML tag
        default = f"`{default}`"
    notes = " ".join(part for part in (row.effect, _sentence(MERGES[row.merge]), _sentence(TRUSTS[row.trust])) if part)
    scope = row.scope.replace("*", "\\*")
    name = row.name.replace("*", "NAME")
    return f"| `{name}` | {scope} | {_cell(default)} | {_cell(expectation(row))} | {_cell(notes)} |"


def _sentence(text: str) -> str:
    return f"({text})" if text else ""


def _example(path: Path, rows: list[KeyRow], scope: str, *, active: bool) -> str:
    mine = [row for row in rows if (row.in_user_file if scope == "U" else row.in_project_file)]
    if not mine:
        return ""
    named = tuple(EXAMPLE_NAMES.get(path[i - 1], "name") if part == "*" else part for i, part in enumerate(path))
    mark = "" if active else "# "
    lines = ["", f"{mark}[{dotted(named)}]"]
    for row in mine:
        note = " (trust)" if scope == "P" and row.needs_trust else ""
        lines += textwrap.wrap(row.effect + note, 110, initial_indent="# ", subsequent_indent="# ")
        value, has_default = _example_value(row, scope)
        # A key without default would change something by standing there; only examples of lists and names may.
        off = "# " if not active or not has_default else ""
        lines.append(f"{off}{dotted(row.path[-1:])} = {toml_value(value)}")
    return "\n".join(lines) + "\n"


def _example_value(row: KeyRow, scope: str) -> tuple[Any, bool]:
    """The value shown, and whether it may stand as a setting."""
    if scope == "P" and row.example is not None:
        return row.example, True
    if row.default is not None and (row.default not in ((), {}, "") or row.example is None):
        return row.default, True
    if row.example is not None:
        return row.example, False
    return "", False


def main() -> None:
    """Write the page and the examples of a checkout."""
    import os

    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    for name, text in (
        ("docs/configuration.md", configuration_page()),
        ("examples/config.toml", user_example()),
        ("examples/project-config.toml", project_example()),
    ):
        with open(os.path.join(top, name), "w", encoding="utf-8") as stream:
            stream.write(text)


if __name__ == "__main__":
    main()
