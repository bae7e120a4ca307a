"""``rch``: ``rch exec`` is the thin client alone, ``rch hook AGENT`` the hook, all else the command line."""

from __future__ import annotations

import sys

_BEFORE = ("-v", "--verbose", "-q", "--quiet", "--json")  # accepted before the subcommand too (coverage A-13)

# A hook that an agent starts by this name must not wait for the command line's modules; rch/agents/dialect.py has why.
_AGENTS = (
    *("claude", "codex", "gemini", "cursor", "copilot"),
    *("opencode", "cline", "continue", "qwen", "windsurf", "aider"),
)


def main() -> int:
    """The exit status."""
    words = sys.argv[1:]
    position = 0
    while position < len(words) and words[position] in _BEFORE:
        position += 1
    if words[position : position + 1] == ["exec"]:
        from rch.client import main as run_client

        return run_client([*words[:position], *words[position + 1 :]])
    if words[:1] == ["hook"] and len(words) == 2 and words[1] in _AGENTS:
        from rch.agents.hook import main as run_hook

        return run_hook(words[1:])
    from rch.cli.main import main as run_cli

    status = run_cli()
    return status if isinstance(status, int) else 0


if __name__ == "__main__":
    sys.exit(main())
