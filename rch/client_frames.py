"""The frames between the thin client and rchd, spoken by both ends.

A frame is ``type u8, length u32 big-endian, payload`` of at most :data:`PAYLOAD_MAX` bytes; the table of types and
payloads is in docs/architecture.md. JSON payloads are ASCII; text is bytes decoded as UTF-8 with ``surrogateescape``
whatever the locale, so that every path, argument and variable survives.

``json`` costs the client 10 ms through ``re`` and ``enum`` (bench/client_startup.py), which is more than the
interpreter; the C parts of it that need neither are used directly where the interpreter has them.
"""

from __future__ import annotations

from _struct import Struct

TYPE_CHECKING = False  # typing itself costs more than this module
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# From the client.
STDIN, STDIN_END, SIGNAL, RESIZE, PROOF, LOCAL_STARTED, LOCAL_DONE, HOOK_DONE = 1, 2, 3, 4, 5, 6, 7, 8
# From rchd.
LOG, NOTE, PROVE, ACCEPTED, LOCAL, EXIT, ERROR, PROVED, HOOK, ALIVE, STDIN_TAKEN = (
    16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26,
)  # fmt: skip

PAYLOAD_MAX = 1 << 20
"""Bytes. A longer frame ends the connection."""

REQUEST_MAX = 8 << 20
"""Bytes of the JSON request; a process's arguments and environment stay below (ARG_MAX is usually 2 MiB)."""

STDIN_WINDOW = 256 << 10
"""Bytes of stdin that may be under way, that is sent by the client and not yet named by a STDIN_TAKEN frame."""

ALIVE_EVERY_S = 5.0
"""rchd sends something at least this often; the client gives up on it after four times as long."""

PROOF_PREFIX = ".rch-proof-"
"""How the name of every nonce file begins; the rest is at least 16 characters of ``[0-9a-f]``."""

SPOOL_PREFIX = ".rch-spool-"
"""How the name of every spool directory begins; the rest is 32 characters of ``[0-9a-f]``."""

HEADER = Struct(">BI")
LOG_OFFSET = Struct(">Q")
LOG_HEADER = Struct(">B3xIQ")  # as rch.worker.protocol.LOG_HEADER; a unit test compares them


class FrameError(Exception):
    """The other end broke a rule of this page; the connection must end."""


def frame(kind: int, payload: bytes = b"") -> bytes:
    """The bytes of one frame."""
    if len(payload) > PAYLOAD_MAX:
        raise FrameError(f"a frame of {len(payload)} bytes, {PAYLOAD_MAX} are allowed")
    return HEADER.pack(kind, len(payload)) + payload


def object_frame(kind: int, value: dict[str, Any]) -> bytes:
    """A frame whose payload is one JSON object."""
    return frame(kind, dumps(value))


class FrameReader:
    """Cuts a byte stream into frames, however it arrives."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that are complete with *data*, in order; raises FrameError on one that is too long."""
        buffer = self._buffer
        buffer += data
        found = []
        position = 0
        while position + HEADER.size <= len(buffer):
            kind, length = HEADER.unpack_from(buffer, position)
            if length > PAYLOAD_MAX:
                raise FrameError(f"a frame of {length} bytes, {PAYLOAD_MAX} are allowed")
            end = position + HEADER.size + length
            if end > len(buffer):
                break
            found.append((kind, bytes(buffer[position + HEADER.size : end])))
            position = end
        del buffer[:position]
        return found


def log_frames(data: bytes) -> list[tuple[int, bytes]]:
    """``(stream, payload)`` of each log frame of *data*, which holds whole frames; raises FrameError."""
    found = []
    position = 0
    while position < len(data):
        if position + LOG_HEADER.size > len(data):
            raise FrameError("a log frame cut in its header")
        stream, length, _time_ns = LOG_HEADER.unpack_from(data, position)
        position += LOG_HEADER.size
        if position + length > len(data):
            raise FrameError("a log frame cut in its payload")
        found.append((stream, data[position : position + length]))
        position += length
    return found


def text(raw: bytes) -> str:
    """Bytes of the system as text of the protocol."""
    return raw.decode("utf-8", "surrogateescape")


def raw(value: str) -> bytes:
    """Undo :func:`text`."""
    return value.encode("utf-8", "surrogateescape")


def printable(value: object, limit: int = 2000) -> str:
    """*value* as one line that cannot steer a terminal: what others sent is shown, never obeyed."""
    line = " ".join(str(value).split())[:limit]
    return "".join(c if c.isprintable() else "?" for c in line)


def dumps(value: Any) -> bytes:
    """*value* as ASCII JSON: dict with str keys, list, tuple, str, int, finite float, bool, None."""
    return _encode(value).encode("ascii")


def loads(data: bytes) -> Any:
    """Decode one JSON document of ASCII bytes; raises FrameError."""
    try:
        source = data.decode("ascii").strip(" \t\r\n")
        value, end = _scan(source, 0)
    except (ValueError, StopIteration, RecursionError, SystemError) as error:
        # SystemError: the scanner of Python 3.11 looks for its exception in a json.decoder that nobody has imported.
        raise FrameError("JSON that does not parse") from error
    if end != len(source):
        raise FrameError("JSON with something behind it")
    return value


def load_object(data: bytes) -> dict[str, Any]:
    """Decode one JSON object; raises FrameError on anything else."""
    value = loads(data)
    if not isinstance(value, dict):
        raise FrameError("JSON that is not an object")
    return value


def _encode(value: Any) -> str:
    if isinstance(value, str):
        return _quote(value)
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{_quote(key)}:{_encode(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_encode, value)) + "]"
    raise TypeError(f"no JSON for {type(value).__name__}")


def _c_json() -> tuple[Callable[[str], str], Callable[[str, int], tuple[Any, int]]]:
    try:
        from _json import encode_basestring_ascii, make_scanner
    except ImportError:  # another Python than CPython
        from json import JSONDecoder
        from json.encoder import encode_basestring_ascii as quote

        return quote, JSONDecoder().scan_once  # type: ignore[attr-defined]  # set by its constructor

    class Rules:  # what json.JSONDecoder would set
        strict = True
        object_hook = None
        object_pairs_hook = None
        parse_float = float
        parse_int = int
        parse_constant = float
        memo: dict[str, str] = {}  # noqa: RUF012 -- the scanner asks for an attribute

    return encode_basestring_ascii, make_scanner(Rules)  # type: ignore[arg-type]  # it only reads attributes


_quote, _scan = _c_json()
