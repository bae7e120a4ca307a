"""Claude's http hook: the same answers as the hook process, for who has the token, about the process that asks."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import socket
import stat
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from rch.agents.install import command_of, http_hook, install, status, uninstall
from rch.agents.programs import Setting
from rch.agents.trial import run, sample, trials
from rch.config.places import places
from rch.daemon.hooks import Hooks
from rch.daemon.http_hook import HttpHook, token
from rch.errors import Unreachable

BUILD = json.dumps(sample("claude", "cd crate && make 2>&1 | tail -5", "/src")).encode()


class Door:
    """A state directory with rchd's http hook, and an environment with a HOME of its own."""

    def __init__(self, place: str) -> None:
        self.home = os.path.join(place, "home")
        self.project = os.path.join(place, "p")
        for made in (self.home, self.project):
            os.mkdir(made, 0o700)
        self.state = os.path.join(place, "state")
        os.mkdir(self.state, 0o700)
        self.env = {"HOME": self.home, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.setting = Setting(self.state, sys.executable, named=True, http_port=self.port)

    @contextlib.contextmanager
    def open(self):
        door = HttpHook(self.port, self.state, Hooks(places({**self.env, "RCH_STATE_DIR": self.state})))
        loop = asyncio.new_event_loop()
        loop.run_until_complete(door.start())
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(door.stop(), loop).result(20)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(20)
            loop.close()

    def ask(self, data: bytes, **env: str) -> bytes:
        """As Claude asks."""
        code, said = run("claude", self.setting, {**self.env, **env}, self.project, data)
        assert code == 0
        return said

    def post(self, path: str, data: bytes, headers: dict[str, str], method: str = "POST") -> tuple[int, bytes]:
        """As this process, which is no agent."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        try:
            return answer.status, answer.read()
        finally:
            connection.close()


@pytest.fixture
def door():
    with tempfile.TemporaryDirectory(prefix="rch-d-") as place, Door(place).open() as made:
        yield made


class TestTheAnswer:
    def test_is_that_of_the_hook_process(self, door):
        said = json.loads(door.ask(BUILD))["hookSpecificOutput"]
        given = json.loads(BUILD)["tool_input"]
        assert said["updatedInput"].pop("command").endswith("exec -- make 2>&1 | tail -5")
        del given["command"]
        assert said["updatedInput"] == given

    def test_of_a_line_without_a_build_is_nothing(self, door):
        assert door.ask(json.dumps(sample("claude", "git status", "/src")).encode()) == b""

    @pytest.mark.parametrize("data", [b"", b"{", b"\xff\0", b"[" * 10_000, b'{"tool_name": "Bash"}'])
    def test_ic_10_of_garbage_is_nothing(self, door, data):
        assert door.ask(data) == b""

    @pytest.mark.parametrize("decision", ["deny", "ask"])
    def test_ic_03_keeps_to_the_rules_of_the_user_whose_agent_asks(self, door, decision):
        path = Path(door.home, ".claude", "settings.json")
        path.parent.mkdir()
        path.write_text(json.dumps({"permissions": {decision: ["Bash(make *)"]}}))
        assert door.ask(BUILD) == b""

    def test_ic_08_obeys_the_switches_of_the_agent(self, door):
        assert door.ask(BUILD, RCH_BYPASS="1") == b""
        assert door.ask(BUILD, RCH_BYPASS="0") != b""

    def test_ic_03_for_a_process_that_is_no_agent_is_nothing(self, door):
        """How it was started tells nothing about the user's rules."""
        headers = {"Authorization": f"Bearer {token(door.state)}"}
        assert door.post("/hook/claude", BUILD, headers) == (204, b"")


class TestTheDoor:
    @pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer x", "Basic abc", "Bearer \xff"])
    def test_m29_is_shut_without_the_token(self, door, given):
        headers = {} if given is None else {"Authorization": given}
        assert door.post("/hook/claude", BUILD, headers)[0] == 401

    @pytest.mark.parametrize(
        ("method", "path"),
        [("GET", "/v1/status"), ("POST", "/v1/stop"), ("POST", "/v1/exec"), ("POST", "/v1/decide"), ("GET", "/")],
    )
    def test_a_22_leads_to_nothing_else(self, door, method, path):
        headers = {"Authorization": f"Bearer {token(door.state)}"}
        assert door.post(path, b"{}", headers, method)[0] in (404, 405)

    def test_m29_has_a_token_that_its_user_alone_can_read(self, door):
        path = Path(door.state, "token")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert len(token(door.state)) == 64
        assert token(door.state) == path.read_text().strip()

    def test_a_22_that_cannot_be_opened_says_so(self, door):
        with pytest.raises(Unreachable, match="http_hook_port") as caught:
            HttpHook(door.port, door.state, Hooks(places({**door.env, "RCH_STATE_DIR": door.state})))
        assert caught.value.exit_status == 4


class TestTheInstallation:
    def test_takes_the_place_of_the_command_and_gives_it_back(self, door):
        path = Path(door.home, ".claude", "settings.json")
        path.parent.mkdir()
        path.write_text('{"model": "m"}\n')
        plain = Setting(door.state, sys.executable, named=True)
        install("claude", plain, door.env)
        install("claude", door.setting, door.env)
        assert set(install("claude", door.setting, door.env).values()) == {"unchanged"}
        hooks = json.loads(path.read_text())["hooks"]
        assert [one for group in hooks["PreToolUse"] for one in group["hooks"]] == [http_hook(door.port)]
        assert token(door.state) not in path.read_text()
        found = status("claude", plain, door.env)
        assert found.state == "installed"
        assert any("RCH_TOKEN" in note for note in found.notes)
        install("claude", plain, door.env)
        hooks = json.loads(path.read_text())["hooks"]
        assert [one["command"] for group in hooks["PreToolUse"] for one in group["hooks"]] == [
            command_of("claude", plain)
        ]
        install("claude", door.setting, door.env)
        uninstall("claude", plain, door.env)
        assert path.read_text() == '{"model": "m"}\n'

    def test_is_tried_by_rch_hook_test(self, door):
        os.mkdir(os.path.join(door.state, "hooks"))
        launcher = Path(door.setting.launcher)
        launcher.write_text("#!/bin/sh\n")
        launcher.chmod(0o700)
        assert [(one.sample, one.ok) for one in trials("claude", door.setting, door.env, door.project)] == [
            ("no build", True), ("build", True), ("rewritten build", True), ("garbage", True),
        ]  # fmt: skip

    def test_without_rchd_leaves_claude_alone(self, tmp_path):
        """A refused connection is "no opinion" to Claude; the trial says that nobody answers."""
        place = tmp_path / "d"
        place.mkdir()
        shut = Door(str(place))
        token(shut.state)
        assert not any(one.ok for one in trials("claude", shut.setting, shut.env, shut.project))


def test_no_other_harness_has_an_http_hook(tmp_path):
    """One entry of another type makes Codex's whole file unreadable."""
    home = tmp_path / "home"
    home.mkdir()
    setting = Setting(str(tmp_path / "s"), sys.executable, http_port=8431)
    for harness in ("codex", "gemini", "cursor", "copilot"):
        for path in install(harness, setting, {"HOME": str(home), "PATH": "/bin"}):
            assert "8431" not in Path(path).read_text()
