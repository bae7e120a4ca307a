"""Edits of settings files that belong to other programs: merge, keep what is foreign, one backup, atomic.

An edit is a pure function text -> text. Undoing gives the very bytes back from before as long as nobody else wrote the
file since: the backup, edited again, is then what the file holds. Else our entries alone are taken out.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from typing import Any

from rch.errors import ConfigError

Edit = Callable[[str], str]


def apply(path: str, edit: Edit, remove: Edit, *, mode: int = 0o600) -> str:
    """Edit the file *path*, which may be missing; "written" or "unchanged". Raises ConfigError.

    A file that holds entries of ours already, which *remove* would take out, is no state to come back to: no backup.
    """
    real = os.path.realpath(path)
    before = read(real)
    after = edit(before or "")
    if after == (before or ""):
        return "unchanged"
    os.makedirs(os.path.dirname(real), mode=0o700, exist_ok=True)
    if before is not None:
        mode = os.stat(real).st_mode & 0o777
        if remove(before) == before and not any(read(one) == before for one in backups(real)):
            _write(f"{real}.bak.{int(time.time())}", before, mode)
    _write(real, after, mode)
    return "written"


def undo(path: str, edit: Edit, remove: Edit) -> str:
    """Take *edit* back; "restored", "removed", "deleted" (the file held nothing else) or "unchanged"."""
    real = os.path.realpath(path)
    now = read(real)
    if now is None:
        return "unchanged"
    for backup in backups(real):
        before = read(backup)
        if before is not None and edit(before) == now and before != now:
            _write(real, before, os.stat(real).st_mode & 0o777)
            os.unlink(backup)
            return "restored"
    after = remove(now)
    if after == now:
        return "unchanged"
    if not after or edit("") == now:
        os.unlink(real)
        return "deleted"
    _write(real, after, os.stat(real).st_mode & 0o777)
    return "removed"


def backups(path: str) -> list[str]:
    """Backups of *path*, newest first."""
    place, name = os.path.split(path)
    try:
        found = [one for one in os.listdir(place) if re.fullmatch(re.escape(name) + r"\.bak\.[0-9]{6,}", one)]
    except OSError:
        return []
    return [os.path.join(place, one) for one in sorted(found, reverse=True)]


def read(path: str) -> str | None:
    """The text of a settings file, None when there is none. Raises ConfigError."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error})", key=path, hint="repair it, then run this again") from None


def json_edit(path: str, change: Callable[[dict[str, Any]], None]) -> Edit:
    """An edit of a JSON object that keeps order, indentation and the end of the file. Raises ConfigError when used."""

    def edit(text: str) -> str:
        document = json_document(text, path)
        before = json.dumps(document)
        change(document)
        if json.dumps(document) == before:
            return text
        indent = re.search(r"\n([ \t]+)\S", text)
        end = "\n" if not text or text.endswith("\n") else ""
        made = json.dumps(document, indent=indent[1] if indent else 2, ensure_ascii=False) + end
        return made.replace("\n", "\r\n") if "\r\n" in text else made

    return edit


def json_document(text: str, path: str) -> dict[str, Any]:
    """*text* as an object; {} for an empty file. Raises ConfigError for what a rewrite could not keep."""
    if not text.strip():
        return {}

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key stands twice")
        return found

    try:
        document = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} is not plain JSON ({error})", key=path, hint="repair it, or edit it by hand"
        ) from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path} holds no JSON object", key=path, hint="repair it, or edit it by hand")
    return document


def _write(path: str, text: str, mode: int) -> None:
    beside = f"{path}.{os.getpid()}.new"
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(fd, "w", encoding="utf-8", newline="") as file:
            os.fchmod(fd, mode)
            file.write(text)
            file.flush()
            os.fsync(fd)
        os.rename(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
