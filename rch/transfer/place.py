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
import shutil
import stat
from collections.abc import Callable, Collection, Iterator, Sequence

from rch.errors import DiskFull, TransferFault
from rch.paths import AbsPath, RelPath
from rch.project.model import Root
from rch.transfer._beneath import Beneath, Blocked, mount_id
from rch.transfer._survey import Survey, matches, survey
from rch.transfer.held import remember_tree_paths, root_state
from rch.transfer.journal import Journal, Step, boot_id
from rch.transfer.model import Conflict, ConflictKind, Placed, Placement, ReturnPlan, RolledForward, Stamp
from rch.transfer.snapshot import hash_beneath
from rch.transfer.staging import Staging
from rch.worker.protocol import Entry, hash_stream

AREA_PREFIX = ".rch-staging-"
"""A directory in the project itself, for the time of one placement, where the project lies on a mount of its own."""

Hook = Callable[[str], None]
"""Called with the name of each moment at which a crash would matter; tests crash there."""


def no_hook(_moment: str) -> None:
    return


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
            result = _run(journal, tree, hook, found.conflicts)
        finally:
            Journal.remove(state_dir, root.key)
            _clear(journal, tree)
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
        _clear(journal, tree)
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
            with _same_time(fd):
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
                if _copy_own(step, areas.tree, name, fds[area]):
                    _finish_file(name, fds[area], step)
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
                        _copy(source, fds[0], name, fds[area])
                    else:
                        os.link(source, name, src_dir_fd=fds[0], dst_dir_fd=fds[0], follow_symlinks=False)
                    _finish_file(name, fds[area], step)
                    made[source, area] = name
            steps.append(step._replace(area=area, name=name))
        for source in {source for source, area in made if not area}:
            os.unlink(source, dir_fd=fds[0])  # else every placed file would have one name too many until the end
    finally:
        for fd in fds:
            os.close(fd)
    return steps


def _copy_own(step: Step, tree: Beneath, name: str, fd: int) -> bool:
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


def _copy(source: str, source_fd: int, name: str, fd: int) -> None:
    with (
        open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source_fd), "rb") as reader,
        open(
            os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=fd), "wb"
        ) as writer,
    ):
        shutil.copyfileobj(reader, writer, 1 << 20)


def _finish_file(name: str, fd: int, step: Step) -> None:
    """Mode and time through one descriptor: names in the project's own area are not to be trusted twice."""
    file_fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    try:
        os.fchmod(file_fd, step.mode)
        os.utime(file_fd, ns=(step.mtime_ns, step.mtime_ns))
    finally:
        os.close(file_fd)


class _Stop(Exception):
    """A build directory changed under our hands: the rest stays away and the command runs here."""


def _run(journal: Journal, tree: Beneath, hook: Hook, known: Sequence[Conflict] = ()) -> Placement:
    """Take the steps. Those already taken (after a crash) are recognised and passed over."""
    placed: dict[str, Placed] = {}
    removed: list[RelPath] = []
    conflicts = list(known)
    skipped: set[str] = set()
    # after a crash: a directory lies already where a file had to go first
    replaced = {s.path for s in journal.steps if s.op == "mkdir" and _is_directory(tree, s.path)}
    areas = [_area_fd(path, tree) for path in journal.areas]
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
    now = _stamp_at(fd, name)
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
        if now is None or not (matches(now, step.before, loose=step.loose) or _is_set(step, now)):
            return False
        if step.type == "f" and now.mode != step.mode:
            _set_mode(fd, name, step.mode, now)
        os.utime(name, ns=(step.mtime_ns, step.mtime_ns), dir_fd=fd, follow_symlinks=False)
        return True
    area = areas[step.area]
    if area is None or _stamp_at(area, step.name) is None:  # placed before a crash
        return now is not None and _is_set(step, now)
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
            _copy(step.name, area, beside, fd)
            _finish_file(beside, fd, step)
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


def _is_set(step: Step, now: Stamp) -> bool:
    return (now.type, now.size, now.mtime_ns) == (step.type, step.size, step.mtime_ns)


def _is_directory(tree: Beneath, path: str) -> bool:
    status = tree.lstat(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def _is_above(path: str, below: str) -> bool:
    return below.startswith(path + "/")


def _stamp_at(fd: int, name: str) -> Stamp | None:
    try:
        return Stamp.of(os.stat(name, dir_fd=fd, follow_symlinks=False))
    except FileNotFoundError:
        return None


def _entry(step: Step) -> Entry:
    return Entry(step.path, step.type, step.mode, step.size, step.mtime_ns, step.content)


def _area_fd(path: str, tree: Beneath) -> int | None:
    try:
        if path.startswith("/"):
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return os.dup(tree.directory(path))
    except OSError:
        return None


def _clear(journal: Journal, tree: Beneath) -> None:
    """Remove the areas that were made in the project; the staging directory is its owner's business."""
    for path in journal.areas[1:]:
        try:
            fd, name = tree.parent(path)
            with _same_time(fd):
                shutil.rmtree(name, ignore_errors=True, dir_fd=fd)
        except OSError:
            continue


@contextlib.contextmanager
def _same_time(fd: int) -> Iterator[None]:
    """What we do in this directory must not show in its own time."""
    status = os.fstat(fd)
    yield
    os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))


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


# After a crash -------------------------------------------------------------------------------------------------------


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
                result = _run(journal, tree, hook)
            finally:
                _clear(journal, tree)
        if journal.steps:
            remember_tree_paths(state_dir, key, journal.root, journal.tree_paths)
    except OSError as error:
        return RolledForward(journal.root, journal.job, complete=False, why=str(error))
    stopped = [c.path for c in result.conflicts if c.kind is ConflictKind.BUILD]
    why = f"{stopped[0]} changed since" if stopped else ""
    return RolledForward(journal.root, journal.job, complete=not stopped, why=why, placement=result)


def _objection(journal: Journal, tree: Beneath) -> str:
    """Why the rest must not be placed any more; "" if it may."""
    areas = [_area_fd(path, tree) for path in journal.areas]
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
                fine = now is not None and (matches(now, step.before, loose=step.loose) or _is_set(step, now))
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
    staged = None if area is None else _stamp_at(area, step.name)
    if staged is None:
        if now is None or not _is_set(step, now):
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
