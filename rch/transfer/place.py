"""From staging into place, in the order in which the job wrote, all or as after an interrupted build (lessons AR-11).

What is removed goes first, then every new file arrives by one rename with its time already set, directories get their
times last. A file is the old one or the new one at every moment. When this process dies on the way,
:func:`roll_forward` finishes the work at the next start; if somebody changed one of the paths in between, it gives up
instead: what lies there then is what a build interrupted at that point would have left, with newer edits on top.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Collection, Iterator

from rch.errors import DiskFull, TransferFault
from rch.paths import AbsPath
from rch.project.beneath import Beneath, Blocked, mount_id
from rch.project.model import Root
from rch.transfer._steps import (
    AREA_PREFIX,
    Hook,
    clear_areas,
    copy_file,
    copy_own,
    finish_file,
    no_hook,
    same_time,
    take_steps,
)
from rch.transfer._survey import Survey, survey
from rch.transfer.held import remember_tree_paths
from rch.transfer.journal import Journal, Step, boot_id
from rch.transfer.model import Placement, ReturnPlan
from rch.transfer.staging import Staging


def place(
    plan: ReturnPlan,
    staging: Staging,
    root: Root,
    *,
    state_dir: AbsPath,
    job: str,
    taken_ns: int,
    tree_paths: Collection[str] = (),
    identity: tuple[int, int] | None = None,
    hook: Hook = no_hook,
) -> Placement:
    """Make this machine what *plan* says; every content in it lies verified in *staging*.

    taken_ns: time of the snapshot. tree_paths: to be remembered as returned (:func:`shared_tree_paths`).
    identity: (device, inode) that the caller proved for the root; another directory there is refused.
    A changed source stays and is a conflict. A path of a build directory that changed is a conflict after which
    nothing (more) is placed: the command has to run here.
    Raises DiskFull (before the first step, unless even a directory entry finds no room), TransferFault.
    """
    with _as_faults(root), Beneath(root.real) as tree:
        if identity is not None and tree.identity != identity:
            raise TransferFault(
                f"{root.path} is not the directory any more that it was when the command started",
                host="here",
                direction="return",
                path=root.path,
            )
        found = survey(plan, tree, taken_ns)
        hook("surveyed")
        if found.repair_locally or not found.steps:
            return Placement(conflicts=tuple(found.conflicts))
        journal = _prepare(plan, found, staging, tree, root, state_dir, job, tuple(tree_paths), hook)
        hook("journal written")
        try:
            result = take_steps(journal, tree, hook, found.conflicts)
        finally:
            Journal.remove(state_dir, root.key)
            clear_areas(journal, tree)
        hook("journal removed")
        remember_tree_paths(state_dir, root.key, root.real, tree_paths)
        return result


def _prepare(
    plan: ReturnPlan,
    found: Survey,
    staging: Staging,
    tree: Beneath,
    root: Root,
    state_dir: AbsPath,
    job: str,
    tree_paths: tuple[str, ...],
    hook: Hook,
) -> Journal:
    """Every staged file complete, with mode and time, on the mount where it will lie; then the journal."""
    areas = _Areas(staging, tree, root)
    journal = Journal(job, root.real, tree.identity, tuple(areas.paths), (), tree_paths, boot_id())
    if len(areas.paths) > 1:  # what we are about to make in the project has to be found again after a crash
        journal.write(state_dir, root.key)
        hook("areas noted")
    try:
        steps = _stage(plan, found, staging, areas)
        hook("staged")
        journal = Journal(job, root.real, tree.identity, tuple(areas.paths), tuple(steps), tree_paths, boot_id())
        if any(step.op in ("put", "remove", "rmdir") for step in steps) or len(areas.paths) > 1:
            journal.write(state_dir, root.key)
    except BaseException:
        Journal.remove(state_dir, root.key)
        clear_areas(journal, tree)
        raise
    return journal


class _Areas:
    """Where staged files wait: our own directory, and one in the project per mount that a rename cannot reach."""

    def __init__(self, staging: Staging, tree: Beneath, root: Root) -> None:
        self.paths: list[str] = [staging.path]
        self.tree = tree
        self._index: dict[str, int] = {}
        with open_directory(staging.path) as fd:
            ours = mount_id(fd)
        made: dict[tuple[int, str], int] = {ours: 0}
        for top in ("", *root.build_dirs):
            with contextlib.suppress(Blocked):
                mount = tree.mount_id(top)
                if mount not in made:
                    made[mount] = len(self.paths)
                    name = AREA_PREFIX + secrets.token_hex(6)
                    self.paths.append(f"{top}/{name}" if top else name)
                self._index[top] = made[mount]

    def area_of(self, path: str) -> int:
        best = ""
        for top in self._index:
            if top and (path == top or path.startswith(top + "/")) and len(top) > len(best):
                best = top
        return self._index[best]

    def make(self) -> None:
        for path in self.paths[1:]:
            fd, name = self.tree.parent(path)
            with same_time(fd):
                os.mkdir(name, 0o700, dir_fd=fd)

    def fd(self, index: int) -> int:
        """A descriptor of the area; the caller closes it."""
        if index == 0:
            return os.open(self.paths[0], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return os.dup(self.tree.directory(self.paths[index]))


@contextlib.contextmanager
def open_directory(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _stage(plan: ReturnPlan, found: Survey, staging: Staging, areas: _Areas) -> list[Step]:
    """Give every "put" its staged name: copied to the right mount, linked with its other names, mode and time set."""
    areas.make()
    fds = [areas.fd(index) for index in range(len(areas.paths))]
    leaders = {e.group: e.path for e in plan.to_fetch if e.group is not None}
    groups = {p.entry.path: p.entry.group for p in plan.placings if p.fetch}
    made: dict[tuple[str, int], str] = {}
    steps: list[Step] = []
    try:
        for number, step in enumerate(found.steps):
            if step.op not in ("put", "own"):
                steps.append(step)
                continue
            area = areas.area_of(step.path)
            name = f"put-{number}"
            if step.op == "own":
                if copy_own(step, areas.tree, name, fds[area]):
                    finish_file(name, fds[area], step)
                    steps.append(step._replace(op="put", area=area, name=name))
                else:  # not what it was any more, which the step itself will find
                    steps.append(step._replace(op="set"))
                continue
            if step.type == "l":
                os.symlink(step.content, name, dir_fd=fds[area])
                os.utime(name, ns=(step.mtime_ns, step.mtime_ns), dir_fd=fds[area], follow_symlinks=False)
            else:
                group = groups[step.path]
                source = staging.name(step.path if group is None else leaders[group])
                assert source is not None  # fetch has verified all of them
                first = made.get((source, area))
                if first is not None:
                    os.link(first, name, src_dir_fd=fds[area], dst_dir_fd=fds[area], follow_symlinks=False)
                else:
                    if area:
                        copy_file(source, fds[0], name, fds[area])
                    else:
                        os.link(source, name, src_dir_fd=fds[0], dst_dir_fd=fds[0], follow_symlinks=False)
                    finish_file(name, fds[area], step)
                    made[source, area] = name
            steps.append(step._replace(area=area, name=name))
        for source in {source for source, area in made if not area}:
            os.unlink(source, dir_fd=fds[0])  # else every placed file would have one name too many until the end
    finally:
        for fd in fds:
            os.close(fd)
    return steps


@contextlib.contextmanager
def _as_faults(root: Root) -> Iterator[None]:
    try:
        yield
    except (DiskFull, TransferFault):
        raise
    except OSError as error:
        where = f"{root.path}: {error.strerror}" + (f" ({error.filename})" if error.filename else "")
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"no space left in {where}",
                host="here",
                path=root.path,
                hint="free space on this machine, then rch fetch",
            ) from error
        raise TransferFault(
            f"the products cannot be placed in {where}", host="here", direction="return", path=root.path
        ) from error
