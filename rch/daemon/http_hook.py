"""The door for Claude's ``type: http`` hook: ``POST /hook/{agent}`` on 127.0.0.1, for who has the token.

Off unless ``interception.http_hook_port`` is set. Nothing else of rchd's API is behind it. The process that asks is
looked up by its connection, for the user's rules are read from how it was started; where it is not seen, or is another
user's, the answer is "no opinion".
"""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
import socket

import structlog
from aiohttp import web

from rch.agents.caller import connected_process
from rch.daemon.hooks import Hooks
from rch.errors import Unreachable
from rch.paths import AbsPath

_log = structlog.get_logger("http-hook")

HOST = "127.0.0.1"
QUESTION_MAX = 8 << 20


class HttpHook:
    """One listener; bound when made, so that a port that is taken is known before rchd is up."""

    def __init__(self, port: int, state: AbsPath, hooks: Hooks) -> None:
        self._hooks = hooks
        self._token = token(state).encode("ascii")
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind((HOST, port))
        except OSError as error:
            self._listener.close()
            raise Unreachable(
                f"interception.http_hook_port: {HOST}:{port} cannot be listened on ({error.strerror})",
                host=HOST,
                hint="choose another port",
            ) from None
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Serve until :meth:`stop`."""
        app = web.Application(client_max_size=QUESTION_MAX)
        app.router.add_post("/hook/{agent:[a-z]+}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.SockSite(self._runner, self._listener).start()
        _log.info("listening", address=f"{HOST}:{self._listener.getsockname()[1]}")

    async def stop(self) -> None:
        """No more questions."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, b"Bearer " + self._token):
            raise web.HTTPUnauthorized(headers={"WWW-Authenticate": "Bearer"}, text="the token is missing or wrong\n")
        data = await request.read()
        sock = request.transport.get_extra_info("socket") if request.transport is not None else None
        here, there = (sock.getsockname(), sock.getpeername()) if sock is not None else (None, None)
        answer = await asyncio.to_thread(self._ask, request.match_info["agent"], data, here, there)
        return web.Response(body=answer, content_type="application/json") if answer else web.Response(status=204)

    def _ask(self, agent: str, data: bytes, here: object, there: object) -> bytes:
        pid = connected_process(here, there)
        return self._hooks.answer_process(agent, data, pid)


def token(state: AbsPath) -> str:
    """The token of this state directory, made once; in a file that its user alone can read."""
    path = os.path.join(state, "token")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    with os.fdopen(fd, "w", encoding="ascii") as file:
        made = secrets.token_hex(32)
        file.write(made + "\n")
    return made
