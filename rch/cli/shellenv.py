"""``rch shellenv``: the lines that put the shims onto a shell's PATH."""

from __future__ import annotations

import os
import shlex

import click

from rch.cli.command import RchCommand, output
from rch.cli.setting import load


@click.command(cls=RchCommand)
@click.option("--shell", type=click.Choice(["sh", "fish", "csh"]), help="Dialect; without it that of $SHELL.")
def shellenv(*, shell: str | None) -> None:
    """Print what puts rch's shims first on PATH: eval "$(rch shellenv)"."""
    said = output()
    directory = load().places.state + "/shims"
    if said.json:
        said.document({"PATH": directory})
        return
    if not os.path.isdir(directory):
        said.say(f"{directory} does not exist yet; next: rch shim install")
    print(shell_line(shell or shell_of(os.environ.get("SHELL", "")), directory))


def shell_of(program: str) -> str:
    """sh, fish or csh, by the name of the login shell."""
    name = os.path.basename(program)
    return "fish" if name == "fish" else "csh" if name in ("csh", "tcsh") else "sh"


def shell_line(shell: str, directory: str) -> str:
    """One line that puts *directory* first on PATH, at most once however often it is run."""
    quoted = shlex.quote(directory)
    if shell == "fish":
        return f"contains -- {quoted} $PATH; or set -gx PATH {quoted} $PATH"
    if shell == "csh":
        return f'if ( ":${{PATH}}:" !~ *:{quoted}:* ) setenv PATH {quoted}:"${{PATH}}"'
    return f'case ":$PATH:" in *:{quoted}:*) ;; *) PATH={quoted}:$PATH; export PATH ;; esac'
