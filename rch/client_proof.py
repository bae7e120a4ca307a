"""What shows rchd that the caller may write a root: files of rchd's naming, gone again without a trace."""

from __future__ import annotations

import errno
import os

from rch import client_frames as wire
from rch.client_paths import Traceless


class Proofs:
    """The files that are there now; ``roots`` are all that were ever asked for."""

    __slots__ = ("_held", "roots")

    def __init__(self) -> None:
        self.roots: list[str] = []
        self._held: dict[str, tuple[int, str, Traceless]] = {}

    def make(self, root: str, nonce: str) -> dict[str, object]:
        """Create the file *nonce* in *root*; the fields of the PROOF frame."""
        try:
            fd, trace, device, inode = create_proof(root, nonce)
        except OSError as error:
            return {"root": root, "error": error.strerror or str(error)}
        self.remove(root)
        self._held[root] = (fd, nonce, trace)
        if root not in self.roots:
            self.roots.append(root)
        return {"root": root, "dev": device, "ino": inode}

    def remove(self, root: str) -> None:
        """Take the file out of *root*, whose times are then as they were."""
        held = self._held.pop(root, None)
        if held is None:
            return
        fd, nonce, trace = held
        ours = trace.still_ours()
        try:
            os.unlink(nonce, dir_fd=fd)
        except OSError:
            ours = False
        if ours:
            trace.restore()
        os.close(fd)

    def remove_all(self) -> None:
        """Leave nothing behind."""
        for root in list(self._held):
            self.remove(root)


def create_proof(root: str, nonce: str) -> tuple[int, Traceless, int, int]:
    """Create the file *nonce* in *root*; the open directory, its times, device and inode. Raises OSError.

    Only a name that rchd makes is accepted: whoever plays rchd gets no file of its choice written.
    """
    digits = nonce.removeprefix(wire.PROOF_PREFIX)
    if digits == nonce or len(digits) < 16 or not set(digits) <= set("0123456789abcdef"):
        raise OSError(errno.EINVAL, "not the name of a proof")
    if not root.startswith("/"):
        raise OSError(errno.EINVAL, "not an absolute path")
    directory = os.open(wire.raw(root), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = os.fstat(directory)
        trace = Traceless(directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(nonce, flags, 0o600, dir_fd=directory))
        trace.made()
    except BaseException:
        os.close(directory)
        raise
    return directory, trace, found.st_dev, found.st_ino
