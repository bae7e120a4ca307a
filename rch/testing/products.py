"""Looking at what a command left behind: which units it built, what lies where, what a job cost."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rch.testing.fixtures import RchState

_CARGO = re.compile(r"^ *(Compiling|Fresh|Dirty) (\S+) v\S+", re.MULTILINE)
_NINJA = re.compile(r"^\[\d+/\d+\] (.*)$", re.MULTILINE)


def text_of(done: subprocess.CompletedProcess[bytes]) -> str:
    """stdout and stderr of a command, for messages of assertions too."""
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def succeeded(done: subprocess.CompletedProcess[bytes]) -> str:
    """What a command said; AssertionError unless it ended with 0."""
    text = text_of(done)
    assert done.returncode == 0, f"{done.args} ended with {done.returncode}:\n{text[-4000:]}"
    return text


def cargo_units(text: str, what: str) -> list[str]:
    """Names of crates that ``cargo build -v`` reported as *what*: "Compiling", "Fresh" or "Dirty"."""
    return sorted(name for found, name in _CARGO.findall(text) if found == what)


def make_steps(text: str) -> list[str]:
    """What make compiled and linked: the value of every ``-o`` that it printed."""
    return sorted(match for match in re.findall(r"-o +(\S+)", text))


def ninja_steps(text: str) -> list[str]:
    """What ninja did, one line per edge."""
    return sorted(_NINJA.findall(text))


def job(state: RchState, said: str = "") -> dict[str, Any]:
    """The newest job of this workstation; *said* is what its command said, for the message when there is none."""
    found = json.loads(state.run("rch", "jobs", "--json").stdout)
    assert found, f"no job; the command said:\n{said[-4000:]}"
    newest: dict[str, Any] = max(found, key=lambda item: item["times"]["created"])
    return newest


def sent_out(state: RchState, *command: str, cwd: str, **more: Any) -> str:
    """``rch exec -- command``; AssertionError unless it ran on a worker, ended with 0 and left verified products."""
    text = succeeded(state.exec(*command, cwd=cwd, **more))
    newest = job(state, text)
    assert newest["worker"] != "here", f"ran here ({newest['reason']}):\n{text[-4000:]}"
    assert newest["products"] == "verified", newest
    return text


def contents(top: str, leave_out: Iterable[str] = (".git",)) -> dict[bytes, tuple[str, int, str]]:
    """Path below *top* -> (type, mode bits, SHA-256 or link target) of everything there; no times."""
    skip = {os.fsencode(name) for name in leave_out}
    found: dict[bytes, tuple[str, int, str]] = {}
    start = os.fsencode(top)
    for parent, directories, files in os.walk(start):
        directories[:] = [d for d in directories if d not in skip]
        for name in (*directories, *files):
            path = os.path.join(parent, name)
            found[os.path.relpath(path, start)] = _describe(path)
    return found


def _describe(path: bytes) -> tuple[str, int, str]:
    status = os.lstat(path)
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return "l", 0, os.fsdecode(os.readlink(path))
    if stat.S_ISDIR(status.st_mode):
        return "d", mode, ""
    with open(path, "rb") as file:
        return "f", mode, hashlib.file_digest(file, "sha256").hexdigest()


def digests(top: str, paths: Sequence[str]) -> dict[str, str]:
    """SHA-256 of files below *top*."""
    return {path: _describe(os.fsencode(os.path.join(top, path)))[2] for path in paths}
