"""Small files of ours in the state directory: private, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets


def make_private_dir(path: str) -> None:
    """*path* and its missing parents, mode 0700. Raises OSError."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:  # os.makedirs would give the parents the usual mode
        make_private_dir(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)


def sync_dir(path: str) -> None:
    """Make the names in *path* durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomically(path: str, data: bytes, *, durable: bool = False) -> None:
    """*path* holds *data* (mode 0600) or what it held before, whatever happens.

    durable: it survives a power failure too; without it the worst is the older content.
    """
    temporary = f"{path}.{secrets.token_hex(4)}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        sync_dir(os.path.dirname(path))
