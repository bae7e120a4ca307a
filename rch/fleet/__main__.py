"""``python -m rch.fleet``: what the playbooks ask of the registry.

inventory  print the path of the one that rch finds where RCH_INVENTORY is not set; nothing where there is none
compile   check the inventory and write the snapshot; prints "changed" or "unchanged"
check     check the inventory; writes nothing
record    keep the facts on stdin as a worker's record; prints "changed" or "unchanged"
forget    drop a worker's record and host keys; prints "changed" or "unchanged"
known-hosts  keep the host keys on stdin ({worker: [key, ...]}); with --check only says whether that changes anything
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence

from rch.errors import RchError
from rch.fleet.inventory import find_inventory
from rch.fleet.known_hosts import keep
from rch.fleet.model import Declared
from rch.fleet.record import RECORD_MAX, record_path, write_record
from rch.fleet.registry import compile_registry, is_stale, read_registry
from rch.paths import AbsPath


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m rch.fleet", description="The registry, for playbooks.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("inventory")
    for verb in ("compile", "check", "known-hosts", "record", "forget"):
        one = verbs.add_parser(verb)
        one.add_argument("--state", required=True, metavar="DIR")
        if verb in ("record", "forget"):
            one.add_argument("--name", required=True)
        else:
            one.add_argument("--inventory", default="", metavar="SRC")
        if verb == "known-hosts":
            how = one.add_mutually_exclusive_group(required=True)
            how.add_argument("--write", action="store_true")
            how.add_argument("--check", action="store_true")
    chosen = parser.parse_args(arguments)
    if chosen.verb == "inventory":
        with contextlib.suppress(RchError):
            print(find_inventory(environ={name: text for name, text in os.environ.items() if name != "RCH_INVENTORY"}))
        return 0
    state = AbsPath(os.path.abspath(chosen.state))
    try:
        if chosen.verb == "record":
            changed = write_record(state, chosen.name, sys.stdin.buffer.read(RECORD_MAX + 1))
        elif chosen.verb == "forget":
            changed = _forget(state, chosen.name)
        elif chosen.verb == "known-hosts":
            changed = _known_hosts(state, find_inventory(chosen.inventory), sys.stdin.read(), write=chosen.write)
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


def _forget(state: AbsPath, name: str) -> bool:
    """What was observed of a worker goes; what the inventory declares of it is the inventory's."""
    changed = keep(state, {name: []}, list_declared(state), write=True)
    try:
        os.unlink(record_path(state, name))
    except FileNotFoundError:
        return changed
    return True


def _known_hosts(state: AbsPath, source: AbsPath, text: str, *, write: bool) -> bool:
    found = json.loads(text)
    if not any(found.values()):
        return False
    registry = compile_registry(state, source, write=False) if is_stale(state, source) else read_registry(state)
    return keep(state, found, [worker.declared for worker in registry.workers.values()], write=write)


def list_declared(state: AbsPath) -> list[Declared]:
    """The workers of the snapshot; none where there is no snapshot."""
    try:
        return [worker.declared for worker in read_registry(state).workers.values()]
    except RchError:
        return []


if __name__ == "__main__":
    sys.exit(main())
