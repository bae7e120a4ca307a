"""A small client of rchd's HTTP API on its Unix socket."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from typing_extensions import override

from rch import errors
from rch.cli.terminal import printable
from rch.config.places import check_socket_path
from rch.errors import Fault, RchError, Unreachable

ANSWER_MAX = 64 * 1024 * 1024
"""Bytes of one JSON answer."""


class NotRunning(Unreachable):
    """Nothing listens on rchd's socket."""


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("rchd", timeout=timeout_s)
        self._path = path

    @override
    def connect(self) -> None:
        check_socket_path(self._path)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Api:
    """Requests to the rchd behind *socket_path*; each one has a limit of *timeout_s* seconds."""

    def __init__(self, socket_path: str, *, timeout_s: float = 30.0) -> None:
        self.socket_path = socket_path
        self.timeout_s = timeout_s

    def get(self, *parts: str, timeout_s: float | None = None, **query: str | int) -> Any:
        """The JSON answer of ``GET /v1/<parts>``. Raises NotRunning, Unreachable, or the error that rchd answered."""
        return self._json("GET", _target(parts, query), None, timeout_s)

    def post(self, *parts: str, body: dict[str, Any] | None = None, timeout_s: float | None = None) -> Any:
        """The JSON answer of ``POST /v1/<parts>``; raises as :meth:`get`."""
        return self._json("POST", _target(parts, {}), body or {}, timeout_s)

    def stream(self, *parts: str, timeout_s: float | None = None, **query: str | int) -> Iterator[bytes]:
        """The body of a GET as it comes; raises as :meth:`get`. *timeout_s* bounds each wait for more."""
        with self._answer("GET", _target(parts, query), None, timeout_s) as answer:
            while True:
                try:
                    data = answer.read1(64 * 1024)
                except (OSError, http.client.HTTPException) as error:
                    raise self._broken(error) from error
                if not data:
                    return
                yield data

    def is_running(self) -> bool:
        """True when something answers on the socket."""
        try:
            self.get("health", timeout_s=5.0)
        except RchError:
            return False
        return True

    def _json(self, method: str, target: str, body: dict[str, Any] | None, timeout_s: float | None) -> Any:
        with self._answer(method, target, body, timeout_s) as answer:
            try:
                data = answer.read(ANSWER_MAX + 1)
            except (OSError, http.client.HTTPException) as error:
                raise self._broken(error) from error
        if len(data) > ANSWER_MAX:
            raise Fault(f"rchd's answer to {target} is longer than {ANSWER_MAX} bytes", host="here")
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Fault(f"rchd's answer to {target} is not JSON", host="here", hint="rch daemon restart") from error

    @contextlib.contextmanager
    def _answer(
        self, method: str, target: str, body: dict[str, Any] | None, timeout_s: float | None
    ) -> Iterator[http.client.HTTPResponse]:
        connection = _Connection(self.socket_path, timeout_s or self.timeout_s)
        started = time.monotonic()
        try:
            try:
                data = None if body is None else json.dumps(body).encode()
                headers = {"Content-Type": "application/json"} if data is not None else {}
                connection.request(method, target, body=data, headers=headers)
                answer = connection.getresponse()
            except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
                raise NotRunning("rchd is not running", host="here", hint="rch daemon start") from error
            except PermissionError as error:
                raise Unreachable(
                    f"{self.socket_path} belongs to another user", host="here", hint="unset RCH_STATE_DIR"
                ) from error
            except TimeoutError as error:
                raise Unreachable(
                    f"rchd did not answer within {timeout_s or self.timeout_s:.0f} s",
                    host="here",
                    stage="request",
                    elapsed_s=time.monotonic() - started,
                    hint="rch daemon restart",
                ) from error
            except (OSError, http.client.HTTPException) as error:
                raise self._broken(error) from error
            if answer.status >= 400:
                raise _error(answer, target)
            yield answer
        finally:
            connection.close()

    def _broken(self, error: Exception) -> RchError:
        why = " ".join(printable(str(error)).split()) or type(error).__name__  # what listens may be anything
        return Unreachable(
            f"the connection to rchd broke: {why}", host="here", stage="request", hint="rch daemon status"
        )


def _target(parts: tuple[str, ...], query: dict[str, str | int]) -> str:
    path = "/v1/" + "/".join(quote(part, safe="") for part in parts)
    return f"{path}?{urlencode(query)}" if query else path


def _error(answer: http.client.HTTPResponse, target: str) -> RchError:
    """What rchd answered, as the exception that it was there."""
    data = answer.read(1024 * 1024)
    try:
        body = json.loads(data)
        label, message, hint = str(body["error"]), str(body["message"]), str(body.get("hint", ""))
    except (ValueError, KeyError, TypeError, RecursionError):
        text = printable(data[:200].decode("utf-8", "replace"))
        return Fault(f"rchd answered {answer.status} to {target}: {text}", host="here", hint="rch daemon restart")
    found = getattr(errors, label, None)
    if label == "BadRequest":
        return errors.UsageError(message, hint=hint)
    if label == "NotOffloadable":
        return errors.NotOffloadable(message, code="no-candidate", hint=hint)
    if isinstance(found, type) and issubclass(found, RchError) and found is not RchError:
        return found(message, hint=hint)
    return Fault(message, host="here", hint=hint)
