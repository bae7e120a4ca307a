"""``python -m rch.cli.aside --worker NAME``: a canary build on one worker, from a workstation of its own.

The upgrade verifies a worker before work comes back to it, while the user's rchd drains it. So this one has, as long as
it lasts, its own state directory and rchd, knows of the worker what the user's knows, and leaves nothing behind here.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence

from rch.cli.canary import BUILD_S, candidates, last_line, run, sing
from rch.cli.checks_workers import tools_here
from rch.config.places import places
from rch.errors import RchError
from rch.fleet import load_registry
from rch.fleet.inventory import find_inventory
from rch.paths import AbsPath

STOP_S = 30.0

START_TRIES = 5
"""A start is given five seconds; on a machine that is busy with an upgrade that may be too short once."""

_KNOWN = ("ssh/id_ed25519", "ssh/known_hosts")
"""What the user's state directory holds for a worker, besides its record."""


def main(arguments: Sequence[str] | None = None) -> int:
    """0 and one line when a build came back right, else 1 and one line that says what did not."""
    parser = argparse.ArgumentParser(prog="python -m rch.cli.aside", description="A canary build on one worker.")
    parser.add_argument("--worker", required=True)
    parser.add_argument("--inventory", default="", metavar="SRC")
    chosen = parser.parse_args(arguments)
    try:
        ok, shown = verify(chosen.worker, find_inventory(chosen.inventory), places(dict(os.environ)).state)
    except RchError as error:
        ok, shown = False, error.one_line()
    print(f"{chosen.worker}: {shown}", file=sys.stdout if ok else sys.stderr)
    return 0 if ok else 1


def verify(name: str, inventory: AbsPath, state: AbsPath) -> tuple[bool, str]:
    """Build on worker *name*: whether all went well, and how it went in one line."""
    os.makedirs(state, mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="aside-", dir=state) as place:
        environ = workstation(name, inventory, state, place)
        try:
            _start(place, environ)
            worker = load_registry(AbsPath(environ["RCH_STATE_DIR"]), inventory).workers.get(name)
            if worker is None:
                return False, "no such worker in the inventory"
            pairs = candidates([worker], tools_here(environ, AbsPath(os.path.expanduser("~"))))
            if pairs:
                song = sing(name, pairs[0][1], place, environ)
                return song.ok, song.line()
            return plain(name, place, environ)
        finally:
            _rch(("daemon", "stop"), place, environ, STOP_S)


def plain(name: str, place: str, environ: Mapping[str, str]) -> tuple[bool, str]:
    """Where no compiler is the same on both sides: a command whose file has to come back."""
    project = os.path.join(place, "plain")
    os.mkdir(project)
    words = ("exec", "--worker", name, "--require-remote", "--", "sh", "-c", "echo sings >song")
    status, said = _rch(words, project, environ, BUILD_S)
    if status != 0:
        return False, f"a plain command failed ({status}): {said}"
    if not os.path.exists(os.path.join(project, "song")):
        return False, "a plain command ended well, but its file did not come back"
    return True, "Canary: a plain command (no Rust or C that is the same there and here). Ready."


def _start(place: str, environ: Mapping[str, str]) -> None:
    for _ in range(START_TRIES):
        if _rch(("daemon", "start"), place, environ, STOP_S)[0] == 0:
            return


def workstation(name: str, inventory: AbsPath, state: AbsPath, place: str) -> dict[str, str]:
    """The environment of a workstation below *place* that knows of worker *name* what *state* knows."""
    own = os.path.join(place, "state")
    for path in (f"facts/{name}.json", *_KNOWN):
        if os.path.exists(os.path.join(state, path)):
            os.makedirs(os.path.dirname(os.path.join(own, path)), mode=0o700, exist_ok=True)
            shutil.copy2(os.path.join(state, path), os.path.join(own, path))
    os.makedirs(own, mode=0o700, exist_ok=True)
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith("RCH_")},
        "RCH_STATE_DIR": own,
        "RCH_INVENTORY": inventory,
        "XDG_CONFIG_HOME": os.path.join(place, "config"),
        "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")])),
    }


def _rch(words: tuple[str, ...], cwd: str, environ: Mapping[str, str], limit_s: float) -> tuple[int, str]:
    """Exit status of ``rch WORDS`` and the last line that it said."""
    done = run([sys.executable, "-m", "rch", *words], cwd, environ, limit_s)
    return done.returncode, last_line(done.stderr)


if __name__ == "__main__":
    sys.exit(main())
