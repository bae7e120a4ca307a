"""``rch completion``: what a shell has to load to complete rch's commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from rch.cli.command import RchCommand

SHELLS = ("bash", "zsh", "fish")


@click.command(cls=RchCommand)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(*, shell: str) -> None:
    """Print the completions for SHELL.

    \b
    bash:  rch completion bash > ~/.local/share/bash-completion/completions/rch
    zsh:   rch completion zsh > a directory of $fpath/_rch
    fish:  rch completion fish > ~/.config/fish/completions/rch.fish
    """
    from rch.cli.main import rch

    maker = get_completion_class(shell)
    assert maker is not None  # click knows the three of SHELLS
    print(maker(rch, {}, "rch", "_RCH_COMPLETE").source())
