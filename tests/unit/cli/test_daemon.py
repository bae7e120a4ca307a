"""``rch daemon``: the real rchd is started, looked at, killed and stopped."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rch.cli.daemon import log_text
from rch.cli.lifecycle import lock_holder


@pytest.fixture
def real(shell: Any) -> Iterator[Any]:
    """A shell whose rchd, if it starts one, is gone afterwards."""
    yield shell
    pid = lock_holder(str(shell.state))
    if pid:
        os.kill(pid, signal.SIGKILL)
        _wait_until(lambda: lock_holder(str(shell.state)) is None)


def _wait_until(holds: Any, limit_s: float = 30) -> None:
    until = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.02)


class TestALife:
    def test_start_status_stop(self, real: Any) -> None:
        started = real.process("daemon", "start", "--json")
        assert started.status == 0, started.err
        pid = started.json["pid"]
        assert started.json["started"] is True
        assert real.process("daemon", "start", "--json").json["started"] is False
        found = real.process("daemon", "status", "--json").json
        assert (found["running"], found["pid"]) == (True, pid)
        assert lock_holder(str(real.state)) == pid
        assert real.process("status").status == 0
        assert real.process("jobs", "--json").json == []
        assert real.process("daemon", "stop").out == "rchd stopped\n"
        assert lock_holder(str(real.state)) is None
        assert real.process("daemon", "status").status == 1
        assert real.process("daemon", "stop").out == "rchd was not running\n"
        assert '"started"' in real.process("daemon", "logs", "--json").out

    def test_ds_10_the_child_has_a_session_of_its_own_and_nothing_of_the_caller(self, real: Any) -> None:
        pid = real.process("daemon", "start", "--json", SECRET="x", RCH_WORKER="css", RCH_LOG_LEVEL="debug").json["pid"]
        assert os.getsid(pid) != os.getsid(0)
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        names = {pair.partition(b"=")[0] for pair in environ if pair}
        assert b"RCH_LOG_LEVEL" in names
        assert b"RCH_STATE_DIR" in names
        assert not names & {b"SECRET", b"RCH_WORKER"}
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        for number in (0, 1, 2):
            assert "pipe" not in os.readlink(f"/proc/{pid}/fd/{number}")

    def test_kill_9_leaves_nothing_that_hinders_the_next_start(self, real: Any) -> None:
        pid = real.process("daemon", "start", "--json").json["pid"]
        os.kill(pid, signal.SIGKILL)
        _wait_until(lambda: lock_holder(str(real.state)) is None)
        assert (real.state / "run/rchd.sock").exists()
        assert real.process("daemon", "status").status == 1
        again = real.process("daemon", "start", "--json")
        assert again.status == 0, again.err
        assert again.json["pid"] != pid

    def test_restart_gives_another_process(self, real: Any) -> None:
        first = real.process("daemon", "restart", "--json").json["pid"]
        second = real.process("daemon", "restart", "--json").json["pid"]
        assert first != second

    def test_many_starts_at_once_give_one_rchd(self, real: Any) -> None:
        ended: list[Any] = []
        threads = [
            threading.Thread(target=lambda: ended.append(real.process("daemon", "start", "--json"))) for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {one.status for one in ended} == {0}, [one.err for one in ended]
        assert len({one.json["pid"] for one in ended}) == 1


class TestARefusal:
    def test_inside_a_job_is_exit_3(self, shell: Any) -> None:
        ended = shell("daemon", "start", RCH_ON_WORKER="1")
        assert ended.status == 3

    def test_for_a_path_that_no_socket_can_hold_names_its_length(self, shell: Any) -> None:
        state = f"{shell.cwd}/" + "x" * 120
        ended = shell("daemon", "start", RCH_STATE_DIR=state)
        assert ended.status == 2
        assert "bytes" in ended.err
        assert not Path(state).exists()

    def test_of_rchd_to_start_shows_its_own_words(self, shell: Any, tmp_path: Path) -> None:
        file = tmp_path / "config.toml"
        shell.state.mkdir(mode=0o700)
        (shell.state / "rch.db").mkdir()  # where the store has to be
        file.write_text("")
        ended = shell("daemon", "start", RCH_CONFIG=str(file))
        assert ended.status == 1
        assert ended.err.count("\n") == 1
        assert "next: rch doctor" in ended.err


class TestARchdThatDoesNotAnswer:
    def test_is_named_by_its_pid(self, shell: Any) -> None:
        shell.state.mkdir()
        with open(shell.state / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            ended = shell("daemon", "status")
            assert ended.status == 1
            assert f"rchd (pid {os.getpid()}) holds the state directory" in ended.out
            ended = shell("daemon", "stop")
            assert ended.status == 1
            assert f"next: kill {os.getpid()}" in ended.err
        assert lock_holder(str(shell.state)) is None

    def test_and_holds_on_after_a_stop_is_named_too(
        self, shell: Any, rchd: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import rch.cli.daemon as module

        monkeypatch.setattr(module, "STOP_S", 0.2)
        ended = shell("daemon", "stop")
        assert ended.status == 1
        assert "has not ended" in ended.err
        assert ("POST", "/v1/stop", {"wait_s": 0.0}) in rchd.asked


class TestLogs:
    def test_show_the_last_lines_for_people_and_for_programs(self, shell: Any) -> None:
        (shell.state / "log").mkdir(parents=True)
        rows = [{"time": f"T{i}", "level": "info", "event": "run", "job": f"j-{i}"} for i in range(100)]
        (shell.state / "log/rch.log").write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert shell("daemon", "logs", "-n", "2").out == 'T98 info run job="j-98"\nT99 info run job="j-99"\n'
        assert [json.loads(line) for line in shell("daemon", "logs", "-n", "2", "--json").out.splitlines()] == rows[-2:]

    def test_follow_the_file_through_a_rotation(self, shell: Any) -> None:
        from rch.cli.daemon import _lines

        (shell.state / "log").mkdir(parents=True)
        path = shell.state / "log/rch.log"
        path.write_text("one\n")
        lines = _lines(str(path), 10, follow=True)
        assert next(lines) == "one"
        with path.open("a") as stream:
            stream.write("two\n")
        assert next(lines) == "two"
        path.rename(path.with_suffix(".1"))
        path.write_text("three\n")
        assert next(lines) == "three"
        lines.close()

    def test_of_a_line_that_is_no_json_are_shown_as_they_are(self) -> None:
        assert log_text("Traceback!") == "Traceback!"
        assert log_text("[1]") == "[1]"

    def test_that_do_not_exist_are_exit_1(self, shell: Any) -> None:
        assert shell("daemon", "logs").status == 1


class TestRchdItself:
    @pytest.mark.parametrize(
        ("words", "status", "said"), [(["--version"], 0, "rchd "), (["--help"], 0, "Usage: rchd"), (["--bogus"], 2, "")]
    )
    def test_answers_what_is_asked_and_starts_nothing(
        self, shell: Any, words: list[str], status: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
    ) -> None:
        from rch.daemon import __main__ as rchd

        monkeypatch.setattr(sys, "argv", ["rchd", *words])
        for name, value in shell.env.items():
            monkeypatch.setenv(name, value)
        assert rchd.main() == status
        told = capsys.readouterr()
        assert told.out.startswith(said)
        assert ("rchd takes no arguments, got --bogus" in told.err) == (status == 2)
        assert not shell.state.exists()
