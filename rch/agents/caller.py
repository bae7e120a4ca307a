"""Who asks: the agent's process above the hook, and the variables that the hook was given."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

VARIABLES = (
    *("HOME", "PATH", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"),
    *("RCH_ON_WORKER", "RCH_BYPASS", "RCH_ENABLED", "RCH_LOCAL_ONLY", "RCH_STATE_DIR", "RCH_CONFIG", "RCH_INVENTORY"),
    *("RCH_REQUIRE_REMOTE", "RCH_MODE", "RCH_DRY_RUN"),
    *("CLAUDE_CONFIG_DIR", "CLAUDE_PROJECT_DIR", "CLAUDECODE", "BASH_MAX_TIMEOUT_MS", "BASH_DEFAULT_TIMEOUT_MS"),
    "CARGO_HOME",
    *("CODEX_HOME", "COPILOT_HOME", "COPILOT_CLI", "COPILOT_ALLOW_ALL", "CURSOR_VERSION", "GEMINI_CLI_HOME"),
    "OPENCODE_EXPERIMENTAL_BASH_DEFAULT_TIMEOUT_MS",
)
"""What a hook hands on of its environment; hook.c and client.py have the same list (the tests hold that)."""

_DEEPEST = 8


@dataclass(frozen=True)
class Caller:
    """The hook's circumstances.

    env:       those of :data:`VARIABLES` that are set.
    ancestors: the words of the processes above the hook, nearest first; empty where they cannot be seen.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    ancestors: tuple[tuple[str, ...], ...] = ()

    @property
    def home(self) -> str:
        """HOME, or "" where it is not an absolute path."""
        home = self.env.get("HOME", "")
        return os.path.normpath(home) if home.startswith("/") else ""

    def agent(self, is_it: Callable[[Sequence[str]], bool]) -> tuple[str, ...] | None:
        """The words of the nearest ancestor that *is_it*, None when none is."""
        return next((words for words in self.ancestors if is_it(words)), None)


def ancestors(pid: int) -> tuple[tuple[str, ...], ...]:
    """The words of the processes above *pid* on this machine, nearest first; () where there is no /proc."""
    found: list[tuple[str, ...]] = []
    for _ in range(_DEEPEST):
        pid = _parent(pid)
        if pid <= 1:
            break
        words = words_of(pid)
        if not words:
            break
        found.append(words)
    return tuple(found)


def words_of(pid: int) -> tuple[str, ...]:
    """The words of process *pid*, () where they cannot be seen."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return tuple(os.fsdecode(file.read(1 << 20)).rstrip("\0").split("\0"))
    except OSError:
        return ()


def variables_of(pid: int) -> dict[str, str]:
    """Those of :data:`VARIABLES` that process *pid* was started with."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            pairs = (one.partition(b"=") for one in file.read(1 << 20).split(b"\0"))
            return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs if os.fsdecode(name) in VARIABLES}
    except OSError:
        return {}


def connected_process(here: object, there: object) -> int:
    """The process of this user at the far end of a loopback connection from *there* to *here*; 0 where none is seen.

    here, there: IPv4 socket addresses, ours and the peer's.
    """
    try:
        wanted = [_as_in_proc(there), _as_in_proc(here)]
        with open("/proc/net/tcp", encoding="ascii") as file:
            rows = (line.split() for line in file)
            inode = next(row[9] for row in rows if row[1:3] == wanted and row[7] == str(os.getuid()))
        link = f"socket:[{inode}]"
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            if _holds(f"/proc/{pid}/fd", link):
                return int(pid)
    except (OSError, ValueError, IndexError, TypeError, StopIteration):
        return 0
    return 0


def _as_in_proc(address: object) -> str:
    if not isinstance(address, tuple) or len(address) != 2:
        raise ValueError("no IPv4 address")
    return f"{int.from_bytes(bytes(map(int, str(address[0]).split('.'))), 'little'):08X}:{int(address[1]):04X}"


def _holds(folder: str, link: str) -> bool:
    try:
        return any(os.readlink(f"{folder}/{fd}") == link for fd in os.listdir(folder))
    except OSError:  # another user's, or it has ended
        return False


def runs(words: Sequence[str], name: re.Pattern[str]) -> bool:
    """Is *words* a program of that name, or an interpreter running a file of that name or below such a package?"""
    if not words:
        return False
    if name.fullmatch(os.path.basename(words[0])):
        return True
    script = next((word for word in words[1:] if not word.startswith("-")), "")
    interpreted = re.fullmatch(r"node[0-9]*|bun|deno|nodejs", os.path.basename(words[0])) is not None
    return interpreted and any(name.fullmatch(part) for part in script.split("/"))


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0
