"""A placement that a crash of rchd interrupted: finished at the next start, or dropped (lessons AR-11)."""

from __future__ import annotations

import contextlib
import os
import shutil

from rch.paths import AbsPath
from rch.project.beneath import Beneath
from rch.transfer._steps import (
    Hook,
    clear_areas,
    is_set,
    no_hook,
    open_area,
    stamp_at,
    take_steps,
)
from rch.transfer._survey import matches
from rch.transfer.held import remember_tree_paths, root_state
from rch.transfer.journal import Journal, Step, boot_id
from rch.transfer.model import ConflictKind, RolledForward, Stamp
from rch.transfer.snapshot import hash_beneath
from rch.worker.protocol import hash_stream


def roll_forward(state_dir: AbsPath, hook: Hook = no_hook) -> list[RolledForward]:
    """Finish or drop every placement that a crash of rchd interrupted. To be called before any job starts.

    Leftover staging directories go. Never raises for one root what would keep the others from being looked at.
    """
    results: list[RolledForward] = []
    top = os.path.join(state_dir, "roots")
    try:
        keys = sorted(os.listdir(top))
    except FileNotFoundError:
        return results
    for key in keys:
        if not os.path.isdir(os.path.join(top, key)):
            continue
        try:
            journal = Journal.read(state_dir, key)
        except (ValueError, KeyError, TypeError):
            results.append(RolledForward(AbsPath(""), "", complete=False, why="the journal is damaged"))
            journal = None
        except OSError:
            continue
        if journal is not None:
            results.append(_roll_one(journal, state_dir, key, hook))
        with contextlib.suppress(OSError):
            Journal.remove(state_dir, key)
        _drop_staging(state_dir, key)
    return results


def _drop_staging(state_dir: AbsPath, key: str) -> None:
    directory = root_state(state_dir, key)
    for name in os.listdir(directory):
        if name.startswith("staging-"):
            shutil.rmtree(os.path.join(directory, name), ignore_errors=True)


def _roll_one(journal: Journal, state_dir: AbsPath, key: str, hook: Hook) -> RolledForward:
    try:
        with Beneath(journal.root) as tree:
            if tree.identity != journal.identity:
                return RolledForward(journal.root, journal.job, complete=False, why="the directory is another one now")
            try:
                why = _objection(journal, tree)
                if why:
                    return RolledForward(journal.root, journal.job, complete=False, why=why)
                result = take_steps(journal, tree, hook)
            finally:
                clear_areas(journal, tree)
        if journal.steps:
            remember_tree_paths(state_dir, key, journal.root, journal.tree_paths)
    except OSError as error:
        return RolledForward(journal.root, journal.job, complete=False, why=str(error))
    stopped = [c.path for c in result.conflicts if c.kind is ConflictKind.BUILD]
    why = f"{stopped[0]} changed since" if stopped else ""
    return RolledForward(journal.root, journal.job, complete=not stopped, why=why, placement=result)


def _objection(journal: Journal, tree: Beneath) -> str:
    """Why the rest must not be placed any more; "" if it may."""
    areas = [open_area(path, tree) for path in journal.areas]
    rebooted = journal.boot_id != boot_id()
    leaving = {s.path for s in journal.steps if s.op in ("remove", "rmdir")}
    made = {s.path for s in journal.steps if s.op == "mkdir"}
    why = ""
    try:
        for step in journal.steps:
            status = tree.lstat(step.path) if step.path else None
            now = None if status is None else Stamp.of(status)
            fine = True
            if step.op == "remove":
                replaced = now is not None and now.type == "d" and step.path in made
                fine = now is None or replaced or matches(now, step.before, loose=step.loose)
            elif step.op == "mkdir":
                fine = now is None or now.type == "d" or step.path in leaving
            elif step.op == "set":
                fine = now is not None and (matches(now, step.before, loose=step.loose) or is_set(step, now))
            elif step.op == "put":
                fine = _may_put(step, now, tree, areas[step.area], leaving, rebooted=rebooted)
            if not fine:
                why = why or f"{step.path} changed since"
    finally:
        for fd in areas:
            if fd is not None:
                os.close(fd)
    return why


def _may_put(
    step: Step, now: Stamp | None, tree: Beneath, area: int | None, leaving: set[str], *, rebooted: bool
) -> bool:
    staged = None if area is None else stamp_at(area, step.name)
    if staged is None:
        if now is None or not is_set(step, now):
            if rebooted and now is not None and now.type == "f" and now.mtime_ns == step.mtime_ns:
                _unlink(step.path, tree)  # placed, then torn by the loss of power: absent is rebuilt, torn is not
            return False
        if not rebooted or step.type == "l" or hash_beneath(tree, step.path) == step.content:
            return True
        _unlink(step.path, tree)
        return False
    assert area is not None
    if step.type == "f":
        fd = os.open(step.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=area)
        with open(fd, "rb", buffering=0) as stream:
            if staged.size != step.size or hash_stream(stream) != step.content:
                return False
    return matches(now, step.before, loose=step.loose) or (step.before is None and step.path in leaving)


def _unlink(path: str, tree: Beneath) -> None:
    fd, name = tree.parent(path)
    os.unlink(name, dir_fd=fd)
