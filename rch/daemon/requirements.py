"""Programs that the caller's variables name (RUSTC_WRAPPER, CC, CXX): a worker without them is no candidate (A-21).

The facts of a worker cannot list every program, so it is asked once per connection, and only for commands that name
one.
"""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Iterator, Mapping

from rch.daemon.modes import facts_for
from rch.daemon.pool import Member
from rch.execute.executor import Hello
from rch.fleet.toolchains import binds
from rch.paths import is_below
from rch.project.model import Project

VARIABLES = ("RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CC", "CXX")

LAUNCHERS = frozenset({"ccache", "sccache", "distcc", "icecc"})
"""In ``CC="ccache gcc"`` the second word is a program too."""

SYSTEM = ("/usr", "/bin", "/sbin", "/opt")
"""What a job sees of its worker itself."""


class Requirements:
    """Remembers what each worker is known to have, as long as its connection lasts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Hello | None, dict[tuple[str, ...], bool]]] = {}

    def lacking(self, member: Member, project: Project) -> str:
        """ "sccache (RUSTC_WRAPPER)": what *member* lacks of what the job's environment names, or "".

        Raises what the executor raises.
        """
        if member.worker.declared.executor == "local":
            return ""
        wanted = {
            f"{word} ({name})": found
            for name, word in programs(project.env)
            if (found := places(word, project, member)) is not None
        }
        known = self._known_of(member)
        unsure = sorted({found for found in wanted.values() if found not in known})
        if unsure:
            answer = member.executor.request("programs", {"programs": [list(p) for p in unsure]}, timeout_s=10)
            missing = answer.fields.get("missing")
            missing = missing if isinstance(missing, list) else list(range(len(unsure)))
            known.update({found: number not in missing for number, found in enumerate(unsure)})
        return ", ".join(sorted(shown for shown, found in wanted.items() if not known[found]))

    def _known_of(self, member: Member) -> dict[tuple[str, ...], bool]:
        with self._lock:
            hello, known = self._known.get(member.worker.name, (None, {}))
            if hello is not member.hello:
                known = {}
                self._known[member.worker.name] = (member.hello, known)
            return known


def programs(env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(variable, program) of everything that *env* has builds start."""
    for name in VARIABLES:
        try:
            words = shlex.split(env.get(name, ""))
        except ValueError:
            continue  # the tool will say what it thinks of it
        for word in words[: 2 if words and os.path.basename(words[0]) in LAUNCHERS else 1]:
            if not word.startswith("-"):
                yield name, word


def places(word: str, project: Project, member: Member) -> tuple[str, ...] | None:
    """Where *word* may lie on the worker, first found first; None when it travels with the project."""
    facts = facts_for(member, project)
    bound = [pair for tool in project.tools for pair in binds(facts, tool.tool.value, tool.identity).items()]
    if "/" in word:
        candidates = [os.path.normpath(os.path.join(project.cwd, word))]
        if any(is_below(candidates[0], top) for root in project.roots for top in (root.path, root.real)):
            return None
    else:
        candidates = [os.path.join(d, word) for d in project.env.get("PATH", "").split(":") if d.startswith("/")]
    found = []
    for path in candidates:
        there = next((source + path[len(top) :] for top, source in bound if is_below(path, top)), None)
        if there is not None or any(is_below(path, top) for top in SYSTEM):
            found.append(there or path)
    return tuple(found)
