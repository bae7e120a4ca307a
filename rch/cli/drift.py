"""Toolchains of the workers that are not as the lock or this machine wants them: for people and for the playbooks.

``python -m rch.cli.drift`` reads ``{"lock": keys of toolchain.toml, "facts": {worker: its facts}}`` from stdin, prints
one line per difference and exits with 1 when there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rch.fleet.audit import differences
from rch.fleet.record import read_observed
from rch.paths import AbsPath

COMPARED = ("rust", "go", "node")
"""C is compared by every package that owns a header: between distributions it never is the same, and that is no fault
of a worker. What it means for builds, the line of a build that stays here says."""


def identities_here(env: Mapping[str, str], tools: Sequence[str] = COMPARED) -> dict[str, tuple[str, str]]:
    """Tool -> (identity, short form) of what this machine uses outside every project, without the tools it lacks."""
    from rch.errors import NotOffloadable
    from rch.project.tools import identify_tools

    found: dict[str, tuple[str, str]] = {}
    for tool in tools:
        try:
            (said,) = identify_tools([tool], "/", env)
        except NotOffloadable:
            continue
        found[tool] = (said.identity, said.shown)
    return found


def drift_of_workers(state: AbsPath, names: Sequence[str], env: Mapping[str, str]) -> dict[str, list[str]]:
    """Worker -> its differences, by the records of *state* and the user's lock; a broken lock is one of everybody."""
    from rch.config.lock import lock_path, read_lock
    from rch.errors import ConfigError

    try:
        lock = {".".join(key): value for key, value in read_lock(lock_path(env)).items()}
    except ConfigError as error:
        return {name: [error.message] for name in names}
    here = identities_here(env)
    observed = {name: read_observed(state, name).facts for name in names}
    return {name: differences(facts, lock, here) for name, facts in observed.items() if facts}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m rch.cli.drift", description="The audit of toolchains.")
    parser.parse_args(arguments)
    asked: dict[str, Any] = json.loads(sys.stdin.read())
    here = identities_here(os.environ)
    count = 0
    for name, facts in sorted(asked["facts"].items()):
        found = differences(facts, asked["lock"], here)
        count += len(found)
        for line in found or ["as wanted"]:
            print(f"{name}: {line}")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
