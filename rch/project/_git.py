"""Running git on a tree that nobody vouches for.

rchd is not confined, its callers may be (lessons SE-08), and a repository's configuration can name programs
(fsmonitor, hooks, filters, ssh commands). So no command here touches the working tree's content through git,
and everything in a configuration that could start a program is switched off. Nothing is ever written into the
repository: optional locks are off, and commands that need an index work on a copy.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rch.errors import NotOffloadable
from rch.paths import AbsPath, is_below

_TIMEOUT_S = 120
_HARMLESS = (
    "-c", "core.fsmonitor=false",
    "-c", "core.hooksPath=/dev/null",
    "-c", "core.sshCommand=false",
    "-c", "core.pager=cat",
    "-c", "protocol.allow=never",
    "-c", "safe.directory=*",
)  # fmt: skip


class GitFailed(Exception):
    """git ended with an error; the caller decides what that means."""


@dataclass(frozen=True)
class Checkout:
    """A working tree: *top* holds ``.git``, which is a directory or a file that names one (resolved paths).

    git_dir:    the directory that holds HEAD and index of this checkout.
    common_dir: the directory that holds objects and refs; differs for a linked worktree.
    """

    top: AbsPath
    git_dir: AbsPath
    common_dir: AbsPath


def checkout_at(top: str) -> Checkout | None:
    """The checkout whose top is exactly *top*, or None if there is no usable ``.git``."""
    dot_git = os.path.join(top, ".git")
    if os.path.isdir(dot_git):
        git_dir = dot_git
    else:
        pointer = _first_line(dot_git)
        if not pointer.startswith("gitdir: "):
            return None
        git_dir = os.path.normpath(os.path.join(top, pointer.removeprefix("gitdir: ")))
    if not os.path.isfile(os.path.join(git_dir, "HEAD")) and not os.path.islink(os.path.join(git_dir, "HEAD")):
        return None
    common = _first_line(os.path.join(git_dir, "commondir"))
    common_dir = os.path.normpath(os.path.join(git_dir, common)) if common else git_dir
    if not all(os.path.isdir(os.path.join(common_dir, name)) for name in ("objects", "refs")):
        return None  # git does not take it for a repository either
    return Checkout(AbsPath(os.path.realpath(top)), AbsPath(git_dir), AbsPath(common_dir))


def checkout_above(path: str) -> Checkout | None:
    """The checkout that *path* (resolved) lies in."""
    while True:
        found = checkout_at(path)
        if found is not None and not is_below(path, found.git_dir):
            return found
        parent = os.path.dirname(path)
        if parent == path:
            return None
        path = parent


def strays_of(checkout: Checkout) -> str:
    """A place of the repository that its working tree does not vouch for, or "".

    Everything has to lie below the working tree, links resolved; or in a directory that names this working tree itself,
    as git writes it down for a linked worktree and a submodule: nobody else can have done that.
    """
    places = [os.path.realpath(checkout.top)]
    own, common = os.path.realpath(checkout.git_dir), os.path.realpath(checkout.common_dir)
    if not is_below(own, places[0]):
        if not _points_back(checkout) or not is_below(own, common):
            return checkout.git_dir
        places.append(common)
    parts = [os.path.join(checkout.git_dir, name) for name in ("", "HEAD", "index", "config.worktree")]
    parts += [
        os.path.join(checkout.common_dir, name) for name in ("", "objects", "refs", "packed-refs", "config", "shallow")
    ]
    for objects in _object_stores(os.path.join(checkout.common_dir, "objects")):
        parts += [objects, os.path.join(objects, "info", "alternates"), os.path.join(objects, "pack")]
    real = (os.path.realpath(part) for part in parts)
    return next((path for path in real if not any(is_below(path, place) for place in places)), "")


def _object_stores(first: str) -> list[str]:
    """*first* and every directory that it borrows objects from, directly or not."""
    found: dict[str, None] = {first: None}
    waiting = [first]
    while waiting and len(found) < 64:
        objects = waiting.pop()
        with contextlib.suppress(OSError), open(os.path.join(objects, "info", "alternates"), "rb") as stream:
            for line in stream.read(1 << 20).splitlines():
                other = os.path.join(objects, os.fsdecode(line))
                if line and other not in found:
                    found[other] = None
                    waiting.append(other)
    return list(found)


def _points_back(checkout: Checkout) -> bool:
    """The git directory says itself that it is the one of this working tree."""
    worktree = _first_line(os.path.join(checkout.git_dir, "gitdir"))
    if worktree:
        return os.path.realpath(os.path.join(checkout.git_dir, worktree)) == os.path.join(checkout.top, ".git")
    try:
        named = run_git(checkout, ("config", "--local", "--get", "core.worktree"), ok=(0, 1)).rstrip(b"\n")
    except GitFailed:
        return False
    return bool(named) and os.path.realpath(os.path.join(checkout.git_dir, os.fsdecode(named))) == checkout.top


def run_git(
    checkout: Checkout,
    words: Sequence[str],
    *,
    cwd: str = "",
    given: bytes | None = None,
    env: Mapping[str, str] | None = None,
    ok: Sequence[int] = (0,),
) -> bytes:
    """stdout of ``git <words>``; raises GitFailed (status, limit) or NotOffloadable (no git here)."""
    with started(checkout, words, cwd=cwd, stdin=given is not None, env=env) as process:
        return finished(process, given=given, ok=ok)


def started(
    checkout: Checkout,
    words: Sequence[str],
    *,
    cwd: str = "",
    stdin: bool = False,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start git without waiting, so that two listings can run side by side; end it with :func:`finished`."""
    full = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.environ.get("HOME", "/"),
        "LC_ALL": "C",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_DIR": os.path.join(checkout.top, ".git"),
        "GIT_WORK_TREE": checkout.top,
        **({"XDG_CONFIG_HOME": os.environ["XDG_CONFIG_HOME"]} if "XDG_CONFIG_HOME" in os.environ else {}),
        **(env or {}),
    }
    try:
        return subprocess.Popen(
            ["git", *_HARMLESS, *words],
            cwd=cwd or checkout.top,
            env=full,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise NotOffloadable(
            f"git is needed to list {checkout.top} and is not installed here",
            code="missing-input",
            hint="install git",
        ) from error


def finished(process: subprocess.Popen[bytes], *, given: bytes | None = None, ok: Sequence[int] = (0,)) -> bytes:
    """Wait for :func:`started` and answer its stdout; raises GitFailed."""
    try:
        out, err = process.communicate(given, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        process.kill()
        process.communicate()
        raise GitFailed(f"git took more than {_TIMEOUT_S} s") from error
    if process.returncode not in ok:
        raise GitFailed(os.fsdecode(err).strip() or f"git ended with {process.returncode}")
    return out


def _first_line(path: str) -> str:
    try:
        with open(path, "rb") as stream:
            return os.fsdecode(stream.readline(4096).rstrip(b"\r\n"))
    except OSError:
        return ""
