"""``rch`` and ``python -m rch``: ``rch exec`` is the thin client alone, everything else is the command line."""

from __future__ import annotations

import sys

_BEFORE = ("-v", "--verbose", "-q", "--quiet", "--json")  # accepted before the subcommand too (coverage A-13)


def main() -> int:
    """The exit status."""
    words = sys.argv[1:]
    position = 0
    while position < len(words) and words[position] in _BEFORE:
        position += 1
    if words[position : position + 1] == ["exec"]:
        from rch.client import main as run_client

        return run_client([*words[:position], *words[position + 1 :]])
    from rch.cli.main import main as run_cli

    status = run_cli()
    return status if isinstance(status, int) else 0


if __name__ == "__main__":
    sys.exit(main())
