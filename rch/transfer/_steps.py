"""The steps of a journal, taken one by one; each may be repeated after a crash (lessons AR-11)."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence

from rch.paths import RelPath
from rch.project.beneath import Beneath, Blocked
from rch.transfer._survey import matches
from rch.transfer.journal import Journal, Step
from rch.transfer.model import Conflict, ConflictKind, Placed, Placement, Stamp
from rch.worker.protocol import Entry, hash_stream

AREA_PREFIX = ".rch-staging-"
"""A directory in the project itself, for the time of one placement, where the project lies on a mount of its own."""

Hook = Callable[[str], None]
"""Called with the name of each moment at which a crash would matter; tests crash there."""


def no_hook(_moment: str) -> None:
    return


def copy_own(step: Step, tree: Beneath, name: str, fd: int) -> bool:
    """Copy the file that lies at the step's path; False when it does not have the content that it should have."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with (
            tree.open_file(step.path) as source_fd,
            open(source_fd, "rb", closefd=False) as reader,
            open(os.open(name, flags, 0o600, dir_fd=fd), "w+b") as writer,
        ):
            shutil.copyfileobj(reader, writer, 1 << 20)
            writer.seek(0)
            return hash_stream(writer) == step.content
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        return False


def copy_file(source: str, source_fd: int, name: str, fd: int) -> None:
    with (
        open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source_fd), "rb") as reader,
        open(
            os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=fd), "wb"
        ) as writer,
    ):
        shutil.copyfileobj(reader, writer, 1 << 20)


def finish_file(name: str, fd: int, step: Step) -> None:
    """Mode and time through one descriptor: names in the project's own area are not to be trusted twice."""
    file_fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    try:
        os.fchmod(file_fd, step.mode)
        os.utime(file_fd, ns=(step.mtime_ns, step.mtime_ns))
    finally:
        os.close(file_fd)


class _Stop(Exception):
    """A build directory changed under our hands: the rest stays away and the command runs here."""


def take_steps(journal: Journal, tree: Beneath, hook: Hook, known: Sequence[Conflict] = ()) -> Placement:
    """Take the steps. Those already taken (after a crash) are recognised and passed over."""
    placed: dict[str, Placed] = {}
    removed: list[RelPath] = []
    conflicts = list(known)
    skipped: set[str] = set()
    # after a crash: a directory lies already where a file had to go first
    replaced = {s.path for s in journal.steps if s.op == "mkdir" and _is_directory(tree, s.path)}
    areas = [open_area(path, tree) for path in journal.areas]
    try:
        for number, step in enumerate(journal.steps):
            hook(f"step {number}")
            if any(_is_above(path, step.path) for path in skipped) or (step.op == "remove" and step.path in replaced):
                continue
            try:
                done = _take(step, tree, areas)
            except (Blocked, NotADirectoryError, IsADirectoryError):
                done = False
            if not done:
                kind = ConflictKind.BUILD if step.build else ConflictKind.SOURCE
                conflicts.append(Conflict(RelPath(step.path), kind))
                if step.build:
                    raise _Stop
                skipped.add(step.path)
            elif step.op in ("put", "set"):
                status = tree.lstat(step.path)
                if status is not None:
                    placed[step.path] = Placed(_entry(step), status)
            elif step.op == "remove":
                removed.append(RelPath(step.path))
    except _Stop:
        pass
    finally:
        for fd in areas:
            if fd is not None:
                os.close(fd)
    return Placement(placed, tuple(removed), tuple(conflicts))


def _take(step: Step, tree: Beneath, areas: Sequence[int | None]) -> bool:
    """One step; False when something else lies there than what it expects."""
    if step.op == "finish":
        return _finish(step, tree)
    try:
        return _act(step, tree, areas)
    except PermissionError:
        # a directory without write permission: ours for the moment, its own "finish" puts the mode back
        head = step.path.rpartition("/")[0]
        fd = tree.directory(head)
        mode = os.fstat(fd).st_mode & 0o777
        if mode & 0o700 == 0o700:
            raise
        os.fchmod(fd, mode | 0o700)
        return _act(step, tree, areas)


def _act(step: Step, tree: Beneath, areas: Sequence[int | None]) -> bool:
    try:
        fd, name = tree.parent(step.path)
    except Blocked:
        if step.op in ("remove", "rmdir"):
            return True  # gone, with the directory that held it
        raise
    now = stamp_at(fd, name)
    if step.op == "remove":
        if now is None:
            return True
        if not matches(now, step.before, loose=step.loose):
            return False
        os.unlink(name, dir_fd=fd)
        return True
    if step.op == "rmdir":
        if now is not None and now.type == "d":
            try:
                os.rmdir(name, dir_fd=fd)
                tree.forget()
            except OSError as error:
                # it holds files that the worker never saw: they stay, and so does it
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        return True
    if step.op == "mkdir":
        if now is None:
            os.mkdir(name, 0o700 | step.mode, dir_fd=fd)
        return now is None or now.type == "d"
    if step.op == "set":
        if now is None or not (matches(now, step.before, loose=step.loose) or is_set(step, now)):
            return False
        if step.type == "f" and now.mode != step.mode:
            _set_mode(fd, name, step.mode, now)
        os.utime(name, ns=(step.mtime_ns, step.mtime_ns), dir_fd=fd, follow_symlinks=False)
        return True
    area = areas[step.area]
    if area is None or stamp_at(area, step.name) is None:  # placed before a crash
        return now is not None and is_set(step, now)
    if not matches(now, step.before, loose=step.loose):
        return False
    try:
        os.rename(step.name, name, src_dir_fd=area, dst_dir_fd=fd)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _carry_over(step, area, fd, name)
    return True


def _set_mode(fd: int, name: str, mode: int, now: Stamp) -> None:
    """chmod of this very file: chmod(2) by name would follow a link that somebody puts there in this moment."""
    file_fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    try:
        status = os.fstat(file_fd)
        if (status.st_dev, status.st_ino) != (now.device, now.inode):
            raise Blocked(errno.ESTALE, "replaced at this moment", name)
        os.chmod(f"/proc/self/fd/{file_fd}", mode)
    finally:
        os.close(file_fd)


def _carry_over(step: Step, area: int, fd: int, name: str) -> None:
    """A mount inside the project that nobody told us of: copy beside the target, then rename."""
    beside = f"{AREA_PREFIX}{step.name}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(beside, dir_fd=fd)
    try:
        if step.type == "l":
            os.symlink(step.content, beside, dir_fd=fd)
            os.utime(beside, ns=(step.mtime_ns, step.mtime_ns), dir_fd=fd, follow_symlinks=False)
        else:
            copy_file(step.name, area, beside, fd)
            finish_file(beside, fd, step)
        os.rename(beside, name, src_dir_fd=fd, dst_dir_fd=fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside, dir_fd=fd)
        raise
    os.unlink(step.name, dir_fd=area)


def _finish(step: Step, tree: Beneath) -> bool:
    """Mode and time of a directory; one that is no directory any more was somebody's decision."""
    try:
        fd = tree.directory(step.path)
    except Blocked:
        return True
    with contextlib.suppress(PermissionError):
        if os.fstat(fd).st_mode & 0o777 != step.mode:
            os.fchmod(fd, step.mode)
        os.utime(fd, ns=(step.mtime_ns, step.mtime_ns))
    return True


def is_set(step: Step, now: Stamp) -> bool:
    return (now.type, now.size, now.mtime_ns) == (step.type, step.size, step.mtime_ns)


def _is_directory(tree: Beneath, path: str) -> bool:
    status = tree.lstat(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def _is_above(path: str, below: str) -> bool:
    return below.startswith(path + "/")


def stamp_at(fd: int, name: str) -> Stamp | None:
    try:
        return Stamp.of(os.stat(name, dir_fd=fd, follow_symlinks=False))
    except FileNotFoundError:
        return None


def _entry(step: Step) -> Entry:
    return Entry(step.path, step.type, step.mode, step.size, step.mtime_ns, step.content)


def open_area(path: str, tree: Beneath) -> int | None:
    try:
        if path.startswith("/"):
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return os.dup(tree.directory(path))
    except OSError:
        return None


def clear_areas(journal: Journal, tree: Beneath) -> None:
    """Remove the areas that were made in the project; the staging directory is its owner's business."""
    for path in journal.areas[1:]:
        try:
            fd, name = tree.parent(path)
            with same_time(fd):
                shutil.rmtree(name, ignore_errors=True, dir_fd=fd)
        except OSError:
            continue


@contextlib.contextmanager
def same_time(fd: int) -> Iterator[None]:
    """What we do in this directory must not show in its own time."""
    status = os.fstat(fd)
    yield
    os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
