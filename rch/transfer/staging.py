"""The worker's files on their way in: fetched, and proven by hash before anything here changes (lessons AR-01, AR-11).

Files arrive in a directory of the state directory, which belongs to rchd alone: whoever may write the project (an
agent in a sandbox, for one) cannot put a link into the way of the transfer. From there a rename brings them into
place. Where the project lies on another mount, the verified files are first copied into a directory
``.rch-staging-<id>`` there, through descriptors, and renamed from that; it is gone when the placement ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from rch.errors import DiskFull, ProductsUnverified, TransferFault, Unreachable
from rch.execute.executor import Executor
from rch.paths import AbsPath
from rch.project.beneath import Beneath
from rch.project.model import Root
from rch.transfer._files import make_private_dir
from rch.transfer._retry import with_retries
from rch.transfer.held import root_state
from rch.transfer.machine import HEADER_BYTES, is_foreign
from rch.transfer.model import ReturnPlan
from rch.transfer.validate import parse_bodies
from rch.worker.protocol import INLINE_LIMIT, Entry, hash_bytes, hash_stream

RESERVE_BYTES = 64 * 1024 * 1024
"""Left free on this machine's disk beside what is fetched."""


@dataclass
class Fetched:
    """What a fetch cost: contents that travelled, bytes, round trips, rsync processes."""

    files: int = 0
    size_bytes: int = 0
    requests: int = 0
    processes: int = 0


class Staging:
    """``<state>/roots/<key>/staging-<job>``, and in it one verified file per wanted entry, named by number."""

    def __init__(self, state_dir: AbsPath, root_key: str, job: str) -> None:
        self.path = AbsPath(os.path.join(root_state(state_dir, root_key), f"staging-{quote(job, safe='')}"))
        self.incoming = AbsPath(os.path.join(self.path, "in"))
        self._names: dict[str, str] = {}

    def open(self) -> None:
        """Make it, empty. Raises OSError."""
        self.remove()
        make_private_dir(self.incoming)

    def remove(self) -> None:
        """Away with it and everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)

    def name(self, path: str) -> str | None:
        """The name below :attr:`path` of the verified content of *path*, None when it is not there."""
        return self._names.get(path)

    def keep(self, path: str, data: bytes) -> None:
        """Write content that has been checked already."""
        with open(self._next(path), "xb", opener=_private) as stream:
            stream.write(data)

    def adopt(self, entry: Entry, tree: Beneath) -> bool:
        """Take over what rsync brought for *entry* (below *tree*) if it is right; else remove it. Raises OSError."""
        try:
            with tree.open_file(entry.path) as fd:
                good = os.fstat(fd).st_size == entry.size and _hash(fd) == entry.content
        except OSError:
            good = False  # it did not come, or not as a regular file
        if not good:
            with contextlib.suppress(OSError):
                fd, name = tree.parent(entry.path)
                os.unlink(name, dir_fd=fd)
            return False
        fd, name = tree.parent(entry.path)
        os.rename(name, self._next(entry.path), src_dir_fd=fd)
        return True

    def copy(self, entry: Entry, tree: Beneath, path: str) -> bool:
        """Take the content of *entry* from the local file *path* if it is the same. Raises OSError."""
        number = len(self._names)
        try:
            with tree.open_file(path) as fd, open(fd, "rb", closefd=False) as source:
                target = os.path.join(self.path, f"{number}.copy")
                with open(target, "xb", opener=_private) as stream:
                    shutil.copyfileobj(source, stream, 1 << 20)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            return False
        with open(target, "rb", buffering=0) as stream:
            good = os.fstat(stream.fileno()).st_size == entry.size and hash_stream(stream) == entry.content
        if good:
            os.rename(target, self._next(entry.path))
        else:
            os.unlink(target)
        return good

    def header(self, path: str) -> bytes:
        """The first bytes of the staged content of *path*."""
        with open(os.path.join(self.path, self._names[path]), "rb") as stream:
            return stream.read(HEADER_BYTES)

    def _next(self, path: str) -> str:
        name = self._names[path] = str(len(self._names))
        return os.path.join(self.path, name)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _hash(fd: int) -> str:
    with open(fd, "rb", buffering=0, closefd=False) as stream:
        return hash_stream(stream)


def fetch(
    executor: Executor,
    job: str,
    root: Root,
    plan: ReturnPlan,
    bodies: Mapping[str, bytes],
    staging: Staging,
    *,
    here: Iterable[Entry] = (),
    pause: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Bring the content of every ``plan.to_fetch`` into *staging*, verified.

    bodies: contents that came with the Delta, checked already. here: entries of this root that may have the same
    content (a hard link's other name, a file that moved). Up to 1 MiB travels in requests, more by rsync (SP-11).
    Raises ProductsUnverified after three attempts (coverage A-25), DiskFull, HostileAnswer; Unreachable at once when
    the control channel is gone: the root's lock went with it, so it is not for us to go on.
    """
    spent = Fetched()
    wanted = plan.to_fetch
    _refuse_overflow(staging, wanted, executor.worker.name)
    try:
        missing = _take_what_is_there(root, wanted, bodies, staging, here, spent)
        if missing:
            _bring(executor, job, root, missing, staging, spent, pause)
    except OSError as error:
        _raise_disk_full(error, staging.path)
        raise
    return spent


def _take_what_is_there(
    root: Root,
    wanted: Iterable[Entry],
    bodies: Mapping[str, bytes],
    staging: Staging,
    here: Iterable[Entry],
    spent: Fetched,
) -> list[Entry]:
    missing = []
    for entry in wanted:
        data = bodies.get(entry.path)
        if data is not None and len(data) == entry.size and hash_bytes(data) == entry.content:
            staging.keep(entry.path, data)
            spent.files += 1
            spent.size_bytes += entry.size
        elif entry.size == 0 and entry.content == hash_bytes(b""):
            staging.keep(entry.path, b"")
        else:
            missing.append(entry)
    contents = {e.content for e in missing}
    same = {e.content: e.path for e in here if e.type == "f" and e.content in contents} if contents else {}
    if not same:
        return missing
    with Beneath(root.real) as tree:
        return [e for e in missing if not (e.content in same and staging.copy(e, tree, same[e.content]))]


def _bring(
    executor: Executor,
    job: str,
    root: Root,
    missing: list[Entry],
    staging: Staging,
    spent: Fetched,
    pause: Callable[[float], None],
) -> None:
    host = executor.worker.name
    left = {e.path: e for e in missing}

    def attempt() -> None:
        if sum(e.size for e in left.values()) <= INLINE_LIMIT:
            _bring_inline(executor, job, root, left, staging, spent)
        else:
            _bring_by_rsync(executor, root, left, staging, spent)
        if left:
            first = next(iter(left))
            raise TransferFault(
                f"{host}: {len(left)} files did not arrive as declared, the first is {first}",
                host=host,
                direction="return",
                path=first,
            )

    try:
        with_retries(attempt, (TransferFault, Unreachable), pause, sensible=lambda: executor.connected)
    except (TransferFault, Unreachable) as error:
        if isinstance(error, Unreachable) and not executor.connected:
            raise
        raise unverified(host, job, left, error.message) from error


def unverified(host: str, job: str, paths: Iterable[str], why: str) -> ProductsUnverified:
    """The error of a return that ended without all its files."""
    names = tuple(paths)
    shown = f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else ""
    return ProductsUnverified(
        f"products of job {job} on {host} did not arrive{shown}: {why}", paths=names, hint=f"rch fetch {job}"
    )


def _bring_inline(
    executor: Executor, job: str, root: Root, left: dict[str, Entry], staging: Staging, spent: Fetched
) -> None:
    while left:
        answer = executor.request("get", {"job": job, "root": root.key, "paths": list(left)}, timeout_s=60.0)
        spent.requests += 1
        found = parse_bodies(answer.fields.get("bodies", []), answer.body, left, executor.worker.name)
        if not found:
            return
        for path, data in found.items():
            staging.keep(path, data)
            del left[path]
            spent.files += 1
            spent.size_bytes += len(data)


def _bring_by_rsync(executor: Executor, root: Root, left: dict[str, Entry], staging: Staging, spent: Fetched) -> None:
    source = f"{executor.cache_dir}/roots/{root.key}/tree"
    largest = max(e.size for e in left.values())
    moved = executor.receive_files(source, list(left), staging.incoming, largest=largest)
    spent.processes += moved.processes
    with Beneath(staging.incoming) as tree:
        for path, entry in list(left.items()):
            if staging.adopt(entry, tree):
                del left[path]
                spent.files += 1
                spent.size_bytes += entry.size


def refuse_foreign(plan: ReturnPlan, staging: Staging, job: str, host: str, machine: str) -> None:
    """Raise ProductsUnverified if an executable was made for another machine than *machine* (lessons AR-05)."""
    foreign = [
        e.path
        for e in plan.to_fetch
        if e.mode & 0o111 and e.size and is_foreign(e.path, staging.header(e.path), machine)
    ]
    if foreign:
        raise unverified(host, job, foreign, f"they are not made for this machine ({machine})")


def _refuse_overflow(staging: Staging, wanted: Iterable[Entry], host: str) -> None:
    need = sum(e.size for e in wanted)
    status = os.statvfs(staging.path)
    free = status.f_bavail * status.f_frsize
    if need and need + RESERVE_BYTES > free:
        raise DiskFull(
            f"the products on {host} take {need // 1_000_000} MB, here are {free // 1_000_000} MB free",
            host="here",
            path=staging.path,
            hint="free space on this machine, then rch fetch",
        )


def _raise_disk_full(error: OSError, path: str) -> None:
    """DiskFull for what the operating system says about space; anything else is left to the caller."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise DiskFull(
            f"no space left below {path}; nothing was changed in the project",
            host="here",
            path=path,
            hint="free space on this machine, then rch fetch",
        ) from error
