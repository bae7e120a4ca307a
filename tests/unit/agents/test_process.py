"""The hook as a process, whatever goes wrong around it (lessons IC-06, IC-10)."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from rch.agents import caller, hook, programs
from rch.agents.dialect import DIALECTS, HARNESSES, no_opinion
from rch.agents.install import install
from rch.agents.programs import Setting
from rch.agents.trial import BUILD, NO_BUILD, clean_environment, sample, trials
from rch.client_paths import SHIM_MARK
from rch.intercept.argv import KEYWORDS

ROOT = Path(__file__).resolve().parents[3]
BUILDS = json.dumps(sample("claude", BUILD, "/src")).encode()


def silent(done: tuple[int, bytes], harness: str = "claude") -> bool:
    return done == (0, no_opinion(harness))


class TestAFault:
    @pytest.mark.parametrize("harness", ["claude", "gemini", "copilot", "cursor"])
    @pytest.mark.parametrize(
        "data",
        [
            b"", b"\n", b"null", b"[]", b'"command make"', b'{"command": "make"', b"\xff\xfe make command", b"\0" * 9,
            b'{"tool_input": "command make"}', b'{"hook_event_name": "PreToolUse", "tool_name": "Bash", "command": "make"}',
            b'{"hook_event_name":"PreToolUse","tool_name":"Bash","cwd":"/","tool_input":{"command":["make"]}}',
            b'{"hook_event_name":"PreToolUse","tool_name":"Bash","cwd":7,"tool_input":{"command":"make"}}',
            b'{"command": "make", "a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        ],
        ids=range(13),
    )  # fmt: skip
    def test_ic_10_of_the_input_is_no_opinion(self, desk, harness, data):
        with desk.rchd():
            assert silent(desk.hook(harness, data), harness)

    def test_ic_10_of_size_is_no_opinion_in_time(self, desk):
        data = json.dumps(sample("claude", "make " + "x" * 10_000_000, "/src")).encode()
        begun = time.monotonic()
        with desk.rchd():
            assert silent(desk.hook("claude", data))
        assert time.monotonic() - begun < 20

    def test_ic_10_no_rchd_is_no_opinion(self, no_start):
        for harness in HARNESSES:
            data = json.dumps(sample(harness, BUILD, "/src")).encode()
            assert silent(no_start.hook(harness, data), harness)

    def test_ic_10_a_dead_rchd_is_no_opinion(self, no_start):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(no_start.socket)
        assert silent(no_start.hook("claude", BUILDS))

    @pytest.mark.parametrize(
        "said",
        [
            None,
            b"",
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}",
            b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"cut": ',
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}{}",
            b"garbage",
        ],
        ids=["hung", "closed", "head", "500", "cut", "text", "204", "longer", "garbage"],
    )
    def test_ic_10_of_rchd_is_no_opinion_in_time(self, desk, said):
        def script(connection: socket.socket) -> None:
            if said is None:
                time.sleep(3)
                return
            connection.recv(1 << 20)
            connection.sendall(said)

        begun = time.monotonic()
        with desk.scripted(script):
            assert silent(desk.hook("claude", BUILDS))
        assert time.monotonic() - begun < 10 * hook.ANSWER_S

    def test_ic_10_no_home_is_no_opinion(self, desk):
        with desk.rchd():
            done = desk.hook("claude", BUILDS, {"HOME": ""})
            assert silent(done)
            assert silent(desk.hook("claude", BUILDS, {"HOME": "relative"}))

    def test_ic_10_noise_of_a_log_level_stays_out_of_stdout(self, desk):
        with desk.rchd():
            done = desk.hook("claude", BUILDS, {"RCH_LOG_LEVEL": "debug", "RCH_VERBOSE": "1", "PYTHONVERBOSE": "1"})
        assert done[0] == 0
        assert json.loads(done[1])

    @pytest.mark.parametrize("missing", ["hook", "python"])
    def test_of_a_removed_installation_is_no_opinion(self, desk, missing):
        if missing == "hook":
            os.unlink(desk.setting.hook)
        else:
            programs.install(Setting(desk.setting.state, "/no/python", named=True), native=desk.kind == "native")
            with desk.scripted(lambda _connection: None):
                pass  # a socket that refuses
        for harness in HARNESSES:
            done = desk.hook(harness, json.dumps(sample(harness, BUILD, "/src")).encode())
            assert done[0] == 0
            assert done[1] in (b"", no_opinion(harness))

    def test_of_a_closed_stdout_is_nobodys(self, desk):
        read_end, write_end = os.pipe()
        os.close(read_end)
        with desk.rchd():
            done = subprocess.run(
                [desk.setting.hook, "claude"], input=BUILDS, stdout=write_end, env=desk.env, timeout=60, check=False
            )
        os.close(write_end)
        assert done.returncode == 0

    @pytest.mark.parametrize(
        "env",
        [
            {"RCH_BYPASS": "1"},
            {"RCH_ENABLED": "0"},
            {"RCH_ENABLED": "OFF"},
            {"RCH_ON_WORKER": "1"},
            {"RCH_BYPASS": "Yes"},
        ],
        ids=str,
    )
    def test_ic_08_a_switch_makes_it_inert(self, desk, env):
        with desk.rchd():
            assert silent(desk.hook("claude", BUILDS, env))

    @pytest.mark.parametrize("env", [{"RCH_LOCAL_ONLY": "1"}, {"RCH_BYPASS": "0"}, {"RCH_ENABLED": "yes"}], ids=str)
    def test_ic_09_other_switches_are_for_rch_exec(self, desk, env):
        with desk.rchd():
            assert b"exec -- /usr/bin/make" in desk.hook("claude", BUILDS, env)[1]


class TestALineWithoutABuildWord:
    def test_ic_06_starts_no_python_and_asks_nobody(self, desk, tmp_path):
        spy = tmp_path / "python"
        spy.write_text(f"#!/bin/sh\necho started >>{tmp_path}/log\n")
        spy.chmod(0o700)
        programs.install(Setting(desk.setting.state, str(spy), named=True), native=desk.kind == "native")
        data = json.dumps({**sample("claude", NO_BUILD, "/home/me/cargo/make"), "transcript_path": "/go/cc/ninja"})
        with desk.rchd():
            assert silent(desk.hook("claude", data.encode()))
            assert desk.asked == []
            assert not (tmp_path / "log").exists()

    @pytest.mark.parametrize("ascii_only", [True, False])
    def test_ic_01_no_golden_build_is_taken_for_one(self, ascii_only):
        """The prefilters of both programs let through every line that would be rewritten, as JSON in any dress."""
        sys.path.append(str(Path(__file__).parents[1] / "intercept"))
        from golden_lines import load

        lines = [
            golden.line
            for golden in load()
            # A tool whose name is quoted apart (c\\argo) is the shim's.
            if golden.offloads and "c\\argo" not in golden.line
        ]
        assert len(lines) > 200
        with tempfile.TemporaryDirectory(prefix="rch-h-") as place:
            spy = os.path.join(place, "python")
            Path(spy).write_text(f"#!/bin/sh\necho x >>{place}/log\n")
            os.chmod(spy, 0o700)
            setting = Setting(os.path.join(place, "state"), spy, named=True)
            programs.install(setting, native=False)
            for line in lines:
                text = json.dumps({"tool_input": {"command": line}}, ensure_ascii=ascii_only)
                if ascii_only:  # as serialisers for web pages write it
                    text = re.sub(r"[&<>']", lambda found: f"\\u{ord(found[0]):04x}", text)
                before = os.path.getsize(f"{place}/log") if os.path.exists(f"{place}/log") else 0
                subprocess.run([setting.hook, "claude"], input=text.encode(), env={}, timeout=60, check=True)
                assert os.path.getsize(f"{place}/log") > before, line

    def test_ic_06_words_are_looked_for_alike_in_both_programs(self, tmp_path):
        texts = [
            f'{{"tool_input":{{"command":"{c}"}}}}'
            for c in ("go build", "cargo", "ls; go", "a\\ngo vet", "google", "category", "ccache", "cc x.c", "\\u0026cc", "x.cc",
                      "echo", "make", "_go_", "go", "tsc", "find /go/x", "git", "gitgo")
        ] + ['{"cwd":"/make","tool":"x"}', '{"cwd":"/command/make","x":1}', ""]  # fmt: skip
        spy = tmp_path / "python"
        spy.write_text(f"#!/bin/sh\necho x >>{tmp_path}/log\n")
        spy.chmod(0o700)
        found = {}
        for kind in ("native", "sh"):
            with tempfile.TemporaryDirectory(prefix="rch-h-") as place:
                setting = Setting(os.path.join(place, "state"), str(spy), named=True)
                programs.install(setting, native=kind == "native")
                found[kind] = []
                for text in texts:
                    (tmp_path / "log").write_text("")
                    subprocess.run([setting.hook, "x"], input=text.encode(), env={}, timeout=60, check=True)
                    until = time.monotonic() + (0.3 if kind == "native" else 0)  # it starts rchd in the background
                    while not (tmp_path / "log").read_text() and time.monotonic() < until:
                        time.sleep(0.01)
                    found[kind].append(bool((tmp_path / "log").read_text()))
        assert found["native"] == found["sh"]
        assert 5 < sum(found["sh"]) < 15


class TestTheModules:
    def test_ic_06_of_the_python_hook_are_a_fixed_list(self, native_desk):
        spy = f"""
import os, sys
bare = set(sys.modules)
sys.path.append({str(ROOT)!r})
from rch.agents.hook import main
main(["claude"])
os.write(2, " ".join(sorted(set(sys.modules) - bare)).encode())
"""
        with native_desk.rchd():
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-c", spy], input=BUILDS, capture_output=True, timeout=60, check=True,
                env={**native_desk.env, "RCH_STATE_DIR": native_desk.setting.state},
            )  # fmt: skip
        startup = {"os", "stat", "_stat", "posixpath", "genericpath", "_collections_abc", "abc", "_abc"}
        found = set(done.stderr.decode().split()) - startup
        assert found == {"__future__", "_socket", "select", "rch", "rch.agents", "rch.agents.hook", "rch.client_paths"}
        assert native_desk.asked  # it did ask

    def test_the_three_programs_hand_on_the_same_variables(self):
        in_c = re.search(r"variables\[\] = \{(.*?)\}", (ROOT / "rch" / "agents" / "hook.c").read_text(), re.DOTALL)
        assert in_c is not None
        assert tuple(re.findall(r'"(\w+)"', in_c[1])) == hook.VARIABLES
        assert set(hook.VARIABLES) == set(caller.VARIABLES)

    def test_the_door_knows_every_harness(self):
        from rch.__main__ import _AGENTS

        assert set(_AGENTS) == set(HARNESSES)

    def test_a_build_word_is_plain_text_for_the_shell(self):
        assert all(re.fullmatch(r"[a-z+.]+", word) for word in KEYWORDS)


class TestRchHookTest:
    @pytest.mark.parametrize("harness", DIALECTS)
    def test_finds_a_working_hook_working_and_a_silent_one_not(self, desk, harness):
        install(harness, desk.setting, desk.env)
        with desk.rchd():
            found = trials(harness, desk.setting, clean_environment(desk.env), desk.project)
        assert [t.ok for t in found] == [True] * 4, found
        with desk.scripted(lambda _connection: None):
            found = trials(harness, desk.setting, clean_environment(desk.env), desk.project)
        assert [t.ok for t in found] == [True, False, True, True]


class TestTheLauncher:
    def test_is_rch_exec(self, native_desk):
        native_desk.write("x", "")
        done = subprocess.run(
            [native_desk.setting.launcher, "exec", "--", "printf", "%s|", "a b", "$x"],
            env={**native_desk.env, "RCH_BYPASS": "1"}, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, b"a b|$x|")

    def test_runs_the_command_when_rch_has_gone(self, native_desk):
        programs.install(Setting(native_desk.setting.state, "/no/python"), native=True)
        done = subprocess.run(
            [native_desk.setting.launcher, "exec", "--", "sh", "-c", 'echo "$1"; exit 7', "x", "a b"],
            env=native_desk.env, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (7, b"a b\n")


class TestTheStartOfAClaudeSession:
    def start(self, desk, data: bytes = b'{"session_id":"abc-1","x":1}', **env: str) -> bytes:
        done = subprocess.run(
            [desk.setting.claude_path],
            input=data,
            env={**desk.env, **env},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout

    def test_puts_the_shims_first_on_the_path_of_its_shell(self, native_desk, tmp_path):
        os.mkdir(native_desk.setting.shims)
        Path(native_desk.setting.shims, SHIM_MARK).write_text("")
        env_file = tmp_path / "env"
        env_file.write_text("export OTHER=1\n")
        assert self.start(native_desk, CLAUDE_ENV_FILE=str(env_file)) == b""
        self.start(native_desk, CLAUDE_ENV_FILE=str(env_file))
        script = f'. {env_file}; echo "$OTHER $PATH"'
        shown = subprocess.run(["sh", "-c", script], env=native_desk.env, capture_output=True, timeout=60, check=True)
        assert shown.stdout.decode() == f"1 {native_desk.setting.shims}:/usr/bin:/bin\n"

    def test_makes_the_hook_leave_bare_names_to_the_shims(self, native_desk, tmp_path):
        os.mkdir(native_desk.setting.shims)
        Path(native_desk.setting.shims, SHIM_MARK).write_text("")
        bare = json.dumps({**sample("claude", "cargo build", "/src"), "session_id": "abc-1"}).encode()
        by_path = json.dumps({**sample("claude", "/usr/bin/make", "/src"), "session_id": "abc-1"}).encode()
        with native_desk.rchd():
            assert native_desk.hook("claude", bare)[1]
            self.start(native_desk, CLAUDE_ENV_FILE=str(tmp_path / "env"))
            assert silent(native_desk.hook("claude", bare))
            assert b"exec -- /usr/bin/make" in native_desk.hook("claude", by_path)[1]

    @pytest.mark.parametrize("data", [b"", b"{}", b'{"session_id":"../../x"}', b'{"session_id":"a b"}', b"\xff"])
    def test_trusts_no_name_of_a_session(self, native_desk, tmp_path, data):
        os.mkdir(native_desk.setting.shims)
        Path(native_desk.setting.shims, SHIM_MARK).write_text("")
        self.start(native_desk, data, CLAUDE_ENV_FILE=str(tmp_path / "env"))
        assert os.listdir(native_desk.setting.directory + "/sessions") == []

    def test_does_nothing_without_shims_or_an_unwritable_file(self, native_desk, tmp_path):
        self.start(native_desk, CLAUDE_ENV_FILE=str(tmp_path / "env"))
        assert not (tmp_path / "env").exists()
        os.mkdir(native_desk.setting.shims)
        Path(native_desk.setting.shims, SHIM_MARK).write_text("")
        self.start(native_desk, CLAUDE_ENV_FILE="/no/such/dir/env")
        assert os.listdir(native_desk.setting.directory + "/sessions") == []
