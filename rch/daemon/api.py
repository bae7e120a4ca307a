"""The HTTP API on the Unix socket (design.md 6.7): what `rch status`, `rch jobs` and friends read.

Handlers only translate; everything they need comes from :class:`Rchd`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from rch.errors import NoSuchJob, RchError

if TYPE_CHECKING:
    from rch.daemon.rchd import Rchd

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(rchd: Rchd) -> web.Application:
    """All routes."""
    app = web.Application(middlewares=[errors_as_json], client_max_size=16 << 20)

    def get(path: str, answer: Callable[[web.Request], Any]) -> None:
        async def handler(request: web.Request) -> web.Response:
            return as_json(await asyncio.to_thread(answer, request))

        app.router.add_get(path, handler)

    def post(path: str, answer: Callable[[web.Request, dict[str, Any]], Any]) -> None:
        async def handler(request: web.Request) -> web.Response:
            body = await read_object(request)
            return as_json(await asyncio.to_thread(answer, request, body))

        app.router.add_post(path, handler)

    get("/v1/health", lambda _: rchd.health())
    get("/v1/status", lambda _: rchd.status())
    get("/v1/workers", lambda _: rchd.workers())
    get("/v1/jobs", lambda r: rchd.jobs(limit=min(1000, int(r.query.get("limit", "200")))))
    get("/v1/jobs/{id}", lambda r: rchd.job(r.match_info["id"]))
    post("/v1/jobs/{id}/signal", lambda r, b: rchd.signal_job(r.match_info["id"], str(b.get("signal", "cancel"))))
    post("/v1/jobs/{id}/fetch", lambda r, _: rchd.fetch_job(r.match_info["id"]))
    post("/v1/workers/{name}/probe", lambda r, _: rchd.probe(r.match_info["name"]))
    post("/v1/workers/{name}/{verb:drain|enable|disable}", lambda r, _: rchd.switch(**r.match_info))
    post("/v1/unportable/forget", lambda _, __: rchd.forget_unportable())
    post("/v1/refresh", lambda _, __: rchd.refresh())
    post("/v1/decide", lambda _, b: rchd.hooks.decide(b))
    app.router.add_post("/hook/{agent:[a-z]+}", agent_hook(rchd))
    app.router.add_post("/v1/stop", stop(rchd))
    app.router.add_get("/v1/jobs/{id}/log", job_log(rchd))
    return app


def stop(rchd: Rchd) -> Handler:
    """Answer first, then stop."""

    async def handler(request: web.Request) -> web.Response:
        body = await read_object(request)
        asyncio.get_running_loop().call_later(0.05, rchd.request_stop, float(body.get("wait_s", 0) or 0))
        return as_json({"stopping": True})

    return handler


def job_log(rchd: Rchd) -> Handler:
    """``GET /v1/jobs/{id}/log?offset=N&follow=0|1``: whole log frames from N on; X-Rch-Ended tells the end."""

    async def handler(request: web.Request) -> web.StreamResponse:
        offset = int(request.query.get("offset", "0"))
        follow = request.query.get("follow", "0") == "1"
        job_id = request.match_info["id"]
        first = await asyncio.to_thread(rchd.read_log, job_id, offset, 0.0)
        response = web.StreamResponse(headers={"Content-Type": "application/x-rch-log"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        data, offset, ended = first
        while True:
            if data:
                await response.write(data)
            if ended or (not follow and not data):
                break
            data, offset, ended = await asyncio.to_thread(rchd.read_log, job_id, offset, 5.0 if follow else 0.0)
        await response.write_eof()
        return response

    return handler


def agent_hook(rchd: Rchd) -> Handler:
    """``POST /hook/{agent}``: the body is the harness's JSON, so is the answer; 204 is "no opinion"."""

    async def handler(request: web.Request) -> web.Response:
        data = await request.read()
        told = request.headers.get("X-Rch-Env", "")
        agent = request.match_info["agent"]
        answer = await asyncio.to_thread(rchd.hooks.answer, agent, data, told, peer_pid(request))
        if not answer:
            return web.Response(status=204)
        return web.Response(body=answer, content_type="application/json")

    return handler


def peer_pid(request: web.Request) -> int:
    """The process at the other end of the Unix socket, 0 where there is none to be seen."""
    peer: Any = request.transport.get_extra_info("socket") if request.transport is not None else None
    try:
        (pid, _, _) = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    except (AttributeError, OSError):
        return 0
    return int(pid)


async def read_object(request: web.Request) -> dict[str, Any]:
    """The request's JSON object; an empty body is an empty object."""
    text = await request.text()
    if not text:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise web.HTTPBadRequest(text="the body is not JSON") from error
    if not isinstance(value, dict):
        raise web.HTTPBadRequest(text="the body is not a JSON object")
    return value


def as_json(value: Any) -> web.Response:
    """One JSON document."""
    return web.Response(text=json.dumps(value) + "\n", content_type="application/json")


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error of ours is ``{"error": CLASS, "message", "hint", "exit_status"}``, never a traceback."""
    try:
        return await handler(request)
    except NoSuchJob as error:
        return error_response(404, error)
    except RchError as error:
        return error_response(409, error)
    except ValueError as error:
        return web.json_response({"error": "BadRequest", "message": str(error), "exit_status": 2}, status=400)


def error_response(status: int, error: RchError) -> web.Response:
    """The JSON form of an RchError."""
    body = {
        "error": error.label,
        "message": error.message,
        "hint": error.hint,
        "exit_status": error.exit_status,
    }
    return web.json_response(body, status=status)
