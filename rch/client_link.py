"""The thin client's way to rchd: the Unix socket, and where ``connect()`` is forbidden, the spool.

A Link never blocks: what cannot be sent at once waits in a buffer that the relay's loop drains.
"""

from __future__ import annotations

import errno
import os
import select
import sys
from time import monotonic, sleep

from rch import client_frames as wire
from rch.client_paths import spool_request

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
else:
    import _socket as socket  # the public module costs 9 ms through enum and selectors

ANSWER_S = 0.9
"""Seconds that rchd has to answer a connection; a caller is never kept longer by an rchd that hangs."""

_READ = 256 * 1024
_SO_PEERCRED = 17  # of Linux; struct ucred: pid, uid, gid
_DENIED = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EAFNOSUPPORT)


class LinkGone(Exception):
    """The connection has ended, or what came in was nonsense."""


class NoLink(Exception):
    """No way to rchd.

    why: "absent" (nobody listens), "denied" (sockets are forbidden here and no spool answers), "hung" (somebody
         listens and says nothing), "refused" (an answer that is no upgrade; the message has it).
    """

    def __init__(self, why: str, message: str) -> None:
        super().__init__(message)
        self.why = why


class Link:
    """One connection to rchd.

    via: "socket" or "spool".
    """

    __slots__ = ("_out", "_reader", "_ready", "read_fd", "via", "write_fd")

    def __init__(self, via: str, read_fd: int, write_fd: int) -> None:
        self.via = via
        self.read_fd = read_fd
        self.write_fd = write_fd
        self._out = bytearray()
        self._reader = wire.FrameReader()
        self._ready: list[tuple[int, bytes]] = []

    @property
    def waiting(self) -> int:
        """Bytes that could not be sent yet."""
        return len(self._out)

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Queue one frame and send what can be sent at once; a lost link shows when reading."""
        self._out += wire.frame(kind, payload)
        self.flush()

    def say(self, kind: int, fields: dict[str, object]) -> None:
        """As :meth:`send`, with one JSON object."""
        self.send(kind, wire.dumps(fields))

    def flush(self) -> None:
        """Send what can be sent at once."""
        while self._out:
            try:
                sent = os.write(self.write_fd, self._out)
            except BlockingIOError:
                return
            except OSError:
                self._out.clear()  # reading tells the loop
                return
            del self._out[:sent]

    def drain(self, limit_s: float) -> None:
        """Send everything, for at most *limit_s* seconds."""
        until = monotonic() + limit_s
        self.flush()
        while self._out and monotonic() < until:
            _wait(self.write_fd, select.POLLOUT, until)
            self.flush()

    def receive(self) -> list[tuple[int, bytes]]:
        """The frames that have arrived, perhaps none; raises LinkGone at the end of the connection."""
        ready, self._ready = self._ready, []
        try:
            data = os.read(self.read_fd, _READ)
        except BlockingIOError:
            return ready
        except OSError as error:
            raise LinkGone(error.strerror) from None
        if not data and not ready:
            raise LinkGone("rchd closed the connection")
        return ready + self.feed(data)

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """As :meth:`receive` for bytes that were read already."""
        try:
            return self._reader.feed(data)
        except wire.FrameError as error:
            raise LinkGone(str(error)) from None

    def keep(self, frames: list[tuple[int, bytes]]) -> None:
        """Give these out with the next :meth:`receive`."""
        self._ready += frames

    @property
    def has_ready(self) -> bool:
        """Frames wait that no poll will announce."""
        return bool(self._ready)

    def close(self) -> None:
        """End the connection."""
        for fd in {self.read_fd, self.write_fd}:
            os.close(fd)


def open_link(socket_path: str, run: str, request: bytes, spool_places: list[str]) -> Link:
    """Hand *request* (JSON) to rchd; frames flow when this returns. Raises NoLink."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        until = monotonic() + ANSWER_S
        try:
            while not _connected(sock, socket_path):
                if monotonic() > until:
                    raise NoLink("hung", f"rchd accepts no connection within {ANSWER_S} s")
                sleep(0.01)
        except OSError as error:
            return _open_spool(run, request, spool_places, denied=error.errno in _DENIED)
        _refuse_strangers(sock, socket_path)
        fd = sock.detach()
    finally:
        sock.close()
    link = Link("socket", fd, fd)
    try:
        _upgrade(link, request)
    except BaseException:
        link.close()
        raise
    return link


def can_connect(socket_path: str) -> bool:
    """Somebody listens; nothing is said."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        return _connected(sock, socket_path)
    except OSError:
        return False
    finally:
        sock.close()


def _connected(sock: socket.socket, path: str) -> bool:
    """Connect, False while rchd's queue of connections is full; raises OSError when nobody listens."""
    try:
        sock.connect(path)
    except BlockingIOError:
        return False
    return True


def _refuse_strangers(sock: socket.socket, path: str) -> None:
    """The caller's environment is for its own rchd, whoever may have made the directory first. Raises NoLink."""
    uid = int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_PEERCRED, 12)[4:8], sys.byteorder)
    if uid not in (os.getuid(), 0):
        raise NoLink("refused", f"{path} is listened on by another user (uid {uid})")


def _upgrade(link: Link, request: bytes) -> None:
    head = (
        "POST /v1/exec HTTP/1.1\r\nHost: rchd\r\nConnection: Upgrade\r\nUpgrade: rch-frames\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(request)}\r\n\r\n"
    )
    link._out += head.encode("ascii") + request  # noqa: SLF001 -- no frames yet
    until = monotonic() + ANSWER_S
    link.drain(ANSWER_S)
    answer = b""
    while b"\r\n\r\n" not in answer:
        if not _wait(link.read_fd, select.POLLIN, until):
            raise NoLink("hung", f"rchd accepts and does not answer within {ANSWER_S} s")
        try:
            data = os.read(link.read_fd, _READ)
        except OSError as error:
            raise NoLink("absent", f"rchd broke the connection ({error.strerror})") from None
        if not data:
            raise NoLink("absent", "rchd closed the connection before it answered")
        answer += data
    head_bytes, _, rest = answer.partition(b"\r\n\r\n")
    status = head_bytes.split(b"\r\n", 1)[0].decode("latin-1")
    if status.split(" ")[1:2] != ["101"]:
        body = wire.printable(rest.decode("utf-8", "replace"), 200)
        raise NoLink("refused", f"rchd answered {wire.printable(status, 100)} {body}".rstrip())
    if rest:
        try:
            link.keep(link.feed(rest))
        except LinkGone as error:
            raise NoLink("refused", f"rchd does not speak the frames of this client ({error})") from None


def _open_spool(run: str, request: bytes, places: list[str], *, denied: bool) -> Link:
    from rch.client_spool import meet

    absent = NoLink("denied", "sockets are forbidden here") if denied else NoLink("absent", "rchd is not running")
    try:
        announce = os.open(spool_request(run), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # ENXIO: nobody reads it
        raise absent from None
    try:
        if os.fstat(announce).st_uid != os.getuid():
            raise NoLink("refused", f"{spool_request(run)} is another user's")
        fds = meet(announce, request, places, ANSWER_S)
    except TimeoutError as error:
        raise NoLink("hung", f"rchd does not answer through the spool within {ANSWER_S} s ({error})") from None
    except OSError as error:
        raise NoLink(absent.why, f"{absent}, and {error}") from None
    finally:
        os.close(announce)
    return Link("spool", *fds)


def spool_places(environ: dict[str, str], cwd: str) -> list[str]:
    """Where a spool directory may be made, best first: not in the project if it can be helped."""
    places = [p for p in (environ.get("TMPDIR", ""), "/tmp", cwd) if p.startswith("/")]
    return [*dict.fromkeys(places)]


def _wait(fd: int, event: int, until: float) -> bool:
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(max(0.0, until - monotonic()) * 1000))
