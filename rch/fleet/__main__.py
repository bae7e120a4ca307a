"""``python -m rch.fleet``: what the playbooks ask of the registry.

compile   check the inventory and write the snapshot; prints "changed" or "unchanged"
check     check the inventory; writes nothing
record    keep the facts on stdin as a worker's record; prints "changed" or "unchanged"
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from rch.errors import RchError
from rch.fleet.inventory import find_inventory
from rch.fleet.record import RECORD_MAX, write_record
from rch.fleet.registry import compile_registry, is_stale, read_registry
from rch.paths import AbsPath


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m rch.fleet", description="The registry, for playbooks.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("compile", "check"):
        one = verbs.add_parser(verb)
        one.add_argument("--state", required=True, metavar="DIR")
        one.add_argument("--inventory", default="", metavar="SRC")
    one = verbs.add_parser("record")
    one.add_argument("--state", required=True, metavar="DIR")
    one.add_argument("--name", required=True)
    chosen = parser.parse_args(arguments)
    state = AbsPath(os.path.abspath(chosen.state))
    try:
        if chosen.verb == "record":
            changed = write_record(state, chosen.name, sys.stdin.buffer.read(RECORD_MAX + 1))
        else:
            changed = _compile(state, find_inventory(chosen.inventory), write=chosen.verb == "compile")
    except RchError as error:
        print(error.one_line(), file=sys.stderr)
        return error.exit_status
    print("changed" if changed else "unchanged")
    return 0


def _compile(state: AbsPath, source: AbsPath, *, write: bool) -> bool:
    """True if the workers that the inventory declares are not those of the snapshot."""
    if not is_stale(state, source):
        return False
    try:
        before = read_registry(state).digest
    except RchError:
        before = ""
    return compile_registry(state, source, write=write).digest != before


if __name__ == "__main__":
    sys.exit(main())
