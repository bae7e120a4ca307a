"""A model server on the loopback address that plays a list of shell commands, for tests with real agent CLIs.

It speaks as much of the Anthropic Messages, OpenAI Responses, OpenAI Chat and Gemini interfaces as the CLIs need: a
request that offers a shell tool gets a call of that tool with the next command, every other one the text ``done``.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from typing_extensions import override

SHELL_TOOLS = ("Bash", "exec_command", "shell_command", "shell", "run_shell_command", "bash")
"""Names under which harnesses offer their shell."""


@dataclass
class Play:
    """What a server plays and what it saw.

    commands: shell lines, each with further fields of the tool's input.
    results:  what the model was shown of each command, in order.
    requests: path and body of every POST.
    """

    commands: Sequence[tuple[str, dict[str, Any]]]
    results: list[str] = field(default_factory=list)
    requests: list[tuple[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    played: int = 0

    def next_command(self) -> tuple[str, dict[str, Any]] | None:
        if self.played >= len(self.commands):
            return None
        self.played += 1
        return self.commands[self.played - 1]


class FakeModel:
    """``with FakeModel("make") as model``: serves on ``model.url`` until the end of the block."""

    def __init__(self, *commands: str | tuple[str, dict[str, Any]]) -> None:
        self.play = Play([(c, {}) if isinstance(c, str) else c for c in commands])
        play = self.play

        class Handler(_Handler):
            def __init__(self, *arguments: Any) -> None:
                self.play = play
                super().__init__(*arguments)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def results(self) -> list[str]:
        """What the model was shown of each command."""
        return self.play.results

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    play: Play

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""

    def do_HEAD(self) -> None:
        self._answer(b"", "application/json")

    def do_GET(self) -> None:
        empty = {"object": "list", "data": [], "models": []} if "models" in self.path else {}
        self._json(empty)

    def do_POST(self) -> None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            data = b""
            while size := int(self.rfile.readline().strip() or b"0", 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        try:
            body = json.loads(data)
        except ValueError:
            # Some clients compress; a test that fails quietly because of it would be a riddle.
            self.play.problems.append(f"{self.path}: not JSON ({self.headers.get('Content-Encoding')}): {data[:40]!r}")
            body = {}
        self.play.requests.append((self.path, body))
        path = self.path.partition("?")[0]
        if path.endswith(("count_tokens", ":countTokens")):
            self._json({"input_tokens": 10, "totalTokens": 5})
        elif path.endswith("/messages"):
            self._anthropic(body)
        elif path.endswith("/responses"):
            self._responses(body)
        elif "enerateContent" in path:
            self._gemini(body, stream="stream" in path)
        elif path.endswith("/chat/completions"):
            self._chat(body)
        else:
            self._json({})

    # -- the four interfaces ---------------------------------------------------------------------------------------

    def _anthropic(self, body: dict[str, Any]) -> None:
        tool = _shell_tool([t.get("name") for t in body.get("tools", ())])
        last = (body.get("messages") or [{}])[-1].get("content")
        for item in last if isinstance(last, list) else ():
            if item.get("type") == "tool_result":
                self.play.results.append(_text_of(item.get("content")))
        found = self.play.next_command() if tool else None
        n = self.play.played
        if found:
            given = {"command": found[0], "description": "play", **found[1]}
            block: dict[str, Any] = {"type": "tool_use", "id": f"toolu_{n:03}", "name": tool, "input": given}
            start, delta = {**block, "input": {}}, {"type": "input_json_delta", "partial_json": json.dumps(given)}
        else:
            block = {"type": "text", "text": "done"}
            start, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": "done"}
        why = "tool_use" if found else "end_turn"
        message = {
            "id": f"msg_{n}",
            "type": "message",
            "role": "assistant",
            "model": body.get("model", "m"),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }
        if not body.get("stream"):
            self._json({**message, "content": [block], "stop_reason": why})
            return
        self._events(
            ("message_start", {"message": message}),
            ("content_block_start", {"index": 0, "content_block": start}),
            ("content_block_delta", {"index": 0, "delta": delta}),
            ("content_block_stop", {"index": 0}),
            ("message_delta", {"delta": {"stop_reason": why, "stop_sequence": None}, "usage": {"output_tokens": 1}}),
            ("message_stop", {}),
        )

    def _responses(self, body: dict[str, Any]) -> None:
        tool = _shell_tool([t.get("name") for t in body.get("tools", ())])
        seen = [i for i in body.get("input", ()) if isinstance(i, dict) and i.get("type") == "function_call_output"]
        self.play.results.extend(_text_of(i.get("output")) for i in seen[len(self.play.results) :])
        found = self.play.next_command() if tool else None
        n = self.play.played
        if found:
            key, line = {
                "exec_command": ("cmd", found[0]),
                "shell": ("command", ["bash", "-lc", found[0]]),
            }.get(tool, ("command", found[0]))
            item: dict[str, Any] = {
                "type": "function_call",
                "id": f"fc_{n}",
                "call_id": f"call_{n}",
                "name": tool,
                "arguments": json.dumps({key: line, **found[1]}),
            }
        else:
            item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "done"}]}
        usage = {
            "input_tokens": 1,
            "input_tokens_details": None,
            "output_tokens": 1,
            "output_tokens_details": None,
            "total_tokens": 2,
        }
        self._events(
            ("response.created", {"response": {"id": f"resp_{n}"}}),
            ("response.output_item.done", {"output_index": 0, "item": item}),
            ("response.completed", {"response": {"id": f"resp_{n}", "usage": usage}}),
        )

    def _gemini(self, body: dict[str, Any], *, stream: bool) -> None:
        names = [d.get("name") for t in body.get("tools", ()) for d in t.get("functionDeclarations", ())]
        tool = _shell_tool(names)
        for part in (body.get("contents") or [{}])[-1].get("parts", ()):
            if "functionResponse" in part:
                self.play.results.append(_text_of(part["functionResponse"].get("response")))
        found = self.play.next_command() if tool else None
        if found:
            given = {"command": found[0], "description": "play", **found[1]}
            part = {"functionCall": {"name": tool, "args": given}}
        elif names:
            part = {"text": "done"}
        else:
            choice = {"reasoning": "r", "model_choice": "flash", "next_speaker": "user"}
            part = {"text": json.dumps({**choice, "complexity_reasoning": "r", "complexity_score": 1})}
        answer = {
            "candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}],
            "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
        }
        if stream:
            self._answer(b"data: " + json.dumps(answer).encode() + b"\r\n\r\n", "text/event-stream")
        else:
            self._json(answer)

    def _chat(self, body: dict[str, Any]) -> None:
        tool = _shell_tool([t.get("function", {}).get("name") for t in body.get("tools", ())])
        last = (body.get("messages") or [{}])[-1]
        if last.get("role") == "tool":
            self.play.results.append(_text_of(last.get("content")))
        found = self.play.next_command() if tool else None
        n = self.play.played
        if found:
            given = json.dumps({"command": found[0], "description": "play", **found[1]})
            call = {"index": 0, "id": f"call_{n}", "type": "function", "function": {"name": tool, "arguments": given}}
            delta: dict[str, Any] = {"role": "assistant", "tool_calls": [call]}
        else:
            delta = {"role": "assistant", "content": "done"}
        why = "tool_calls" if found else "stop"
        common = {"id": f"c_{n}", "object": "chat.completion.chunk", "created": 1, "model": body.get("model", "m")}
        chunks: list[dict[str, Any]] = [
            {**common, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
            {**common, "choices": [{"index": 0, "delta": {}, "finish_reason": why}]},
            {**common, "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}},
        ]
        text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        self._answer(text.encode(), "text/event-stream")

    # -- answers ---------------------------------------------------------------------------------------------------

    def _events(self, *events: tuple[str, dict[str, Any]]) -> None:
        text = "".join(f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n" for name, data in events)
        self._answer(text.encode(), "text/event-stream")

    def _json(self, value: Any) -> None:
        self._answer(json.dumps(value).encode(), "application/json")

    def _answer(self, data: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _shell_tool(names: Sequence[Any]) -> str:
    return next((name for name in SHELL_TOOLS if name in names), "")


def _text_of(value: Any) -> str:
    """The text in whatever shape a result has."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_text_of(item.get("text", item) if isinstance(item, dict) else item) for item in value)
    if isinstance(value, dict):
        return str(value.get("output", value.get("text", json.dumps(value))))
    return "" if value is None else str(value)
