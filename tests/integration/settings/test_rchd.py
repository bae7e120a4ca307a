"""Keys and variables that rchd itself is started with."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

HINT = "rch config get daemon.socket_path, and name another"


class TestTheLog:
    """general.log_file, general.log_level, RCH_LOG_LEVEL."""

    def lines(self, path: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text().splitlines()]

    def test_lies_where_the_key_says_as_private_json(self, fresh: Any) -> None:
        path = fresh.top / "elsewhere" / "rch.log"
        fresh.user(f"[general]\nlog_file = '{path}'\n")
        fresh.start()
        fresh.stop()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert [line["event"] for line in self.lines(path)][:1] == ["started"]
        assert not (fresh.state / "log" / "rch.log").exists()
        assert fresh.run("rch", "daemon", "logs", "--json").stdout.count('"started"') == 1

    @pytest.mark.parametrize(
        ("key", "variable", "shown"),
        [("info", "", True), ("error", "", False), ("error", "info", True), ("info", "error", False)],
    )
    def test_holds_what_the_level_lets_through_and_the_variable_beats_the_key(
        self, fresh: Any, key: str, variable: str, shown: bool
    ) -> None:
        fresh.user(f"[general]\nlog_level = '{key}'\n")
        if variable:
            fresh.env["RCH_LOG_LEVEL"] = variable
        fresh.start()
        fresh.stop()
        assert bool(self.lines(fresh.state / "log" / "rch.log")) is shown


class TestTheSocket:
    """daemon.socket_path."""

    def test_lies_where_the_key_says_in_a_private_directory_and_everybody_finds_it(self, fresh: Any) -> None:
        path = fresh.top / "mine" / "r.sock"
        fresh.user(f"[daemon]\nsocket_path = '{path}'\n")
        fresh.makefile("echo built")
        fresh.start()
        ended = fresh.exec("make")
        assert (ended.out, ended.where) == ("built\n", "b")
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
        assert json.loads(fresh.run("rch", "daemon", "status", "--json").stdout)["socket"] == str(path)
        fresh.stop()
        assert not path.exists()
        fresh.start()
        assert fresh.exec("make").where == "b"

    def test_takes_no_file_away_and_no_socket_that_answers(self, fresh: Any) -> None:
        precious = fresh.top / "precious"
        precious.write_text("x")
        fresh.user(f"[daemon]\nsocket_path = '{precious}'\n")
        started = fresh.run("rch", "daemon", "start")
        assert started.returncode == 1
        assert "is there and is no socket" in started.stderr
        assert "Traceback" not in started.stderr
        assert precious.read_text() == "x"
        taken = fresh.top / "taken"
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(taken))
            other.listen()
            fresh.user(f"[daemon]\nsocket_path = '{taken}'\n")
            direct = fresh.run(sys.executable, "-m", "rch.daemon")
            assert direct.returncode == 2
            assert direct.stderr == f"rch: error[ConfigError] {taken}: another rchd listens there; next: {HINT}\n"
            assert taken.exists()

    def test_a_11_that_no_address_can_hold_is_refused_with_its_length(self, fresh: Any) -> None:
        fresh.env["RCH_STATE_DIR"] = f"{fresh.top}/{'x' * 100}"
        started = fresh.run("rch", "daemon", "start")
        assert started.returncode == 2
        assert f"has {len(str(fresh.top)) + 101 + len('/run/rchd.sock')} bytes" in started.stderr


class TestTheHttpHook:
    """interception.http_hook_port; what is behind the door is in tests/unit/agents/test_http_hook.py."""

    def test_listens_on_the_loopback_address_where_the_key_says(self, fresh: Any) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]

        def open_() -> bool:
            with socket.socket() as probe:
                probe.settimeout(5)
                return probe.connect_ex(("127.0.0.1", port)) == 0

        fresh.start()
        assert not open_()
        fresh.stop()
        fresh.user(f"[interception]\nhttp_hook_port = {port}\n")
        fresh.start()
        assert open_()


class TestTheEnvironment:
    """RCH_STATE_DIR, RCH_CONFIG, RCH_INVENTORY, RCH_REQUEST_TIMEOUT, RCH_ON_WORKER."""

    def test_a_11_a_state_directory_is_an_rchd_of_its_own(self, fresh: Any) -> None:
        other = {"RCH_STATE_DIR": str(fresh.top / "t")}
        for env in ({}, other):
            assert fresh.run("rch", "daemon", "start", env=env).returncode == 0
        pids = [json.loads(fresh.run("rch", "daemon", "status", "--json", env=e).stdout)["pid"] for e in ({}, other)]
        assert len(set(pids)) == 2
        assert (fresh.top / "t" / "run" / "rchd.sock").exists()
        fresh.run("rch", "daemon", "stop", env=other)
        assert json.loads(fresh.run("rch", "daemon", "status", "--json").stdout)["pid"] == pids[0]

    def test_a_11_has_exactly_its_own_variables_and_a_caller_with_others_is_told(self, fresh: Any) -> None:
        fresh.makefile("echo built")
        fresh.env |= {"SECRET": "x", "RCH_VERBOSE": "0", "RCH_LOG_LEVEL": "info"}
        fresh.start()
        assert fresh.exec("make").where == "b"
        pid = json.loads(fresh.run("rch", "daemon", "status", "--json").stdout)["pid"]
        theirs = Path(f"/proc/{pid}/environ").read_bytes().decode()
        names = {entry.partition("=")[0] for entry in theirs.split("\0")}
        assert {n for n in names if n.startswith("RCH_")} == {"RCH_STATE_DIR", "RCH_INVENTORY", "RCH_LOG_LEVEL"}
        assert "SECRET" not in names
        assert fresh.exec("make").err == ""
        notes = fresh.exec("make", env={"RCH_LOG_LEVEL": "debug"}).err
        assert notes == "[rch] RCH_LOG_LEVEL is debug here, rchd runs with info; next: rch daemon restart\n"
        del fresh.env["RCH_LOG_LEVEL"]
        assert "RCH_LOG_LEVEL is unset here, rchd runs with info" in fresh.exec("make").err

    def test_rch_config_replaces_the_users_file_alone(self, fresh: Any) -> None:
        fresh.makefile("echo built")
        fresh.user("[general]\nlocal_only = true\n")
        other = fresh.top / "other.toml"
        other.write_text("[workers]\nallowed = ['a', 'c']\n")
        fresh.write_project("[workers]\nblocked = ['a']\n")
        fresh.env["RCH_CONFIG"] = str(other)
        fresh.start()
        assert fresh.exec("make").where == "c"
        fresh.env["RCH_CONFIG"] = str(fresh.top / "gone.toml")
        assert fresh.exec("make").reason == "bad-environment"

    def test_rch_inventory_replaces_the_inventory(self, fresh: Any) -> None:
        other = fresh.top / "other"
        other.mkdir()
        (other / "hosts.yml").write_text(
            "rch_workers: {hosts: {z: {rch_executor: local, ansible_connection: local, rch_slots: 1}}}\n"
        )
        fresh.env["RCH_INVENTORY"] = str(other)
        fresh.start()
        assert fresh.exec("echo", "hi", options=("--worker", "z")).where == "z"

    def test_rch_on_worker_starts_no_rchd(self, fresh: Any) -> None:
        started = fresh.run("rch", "daemon", "start", env={"RCH_ON_WORKER": "1"})
        assert started.returncode == 3
        assert started.stderr.startswith("rch: error[Refused] ")
        direct = fresh.run(sys.executable, "-m", "rch.daemon", env={"RCH_ON_WORKER": "1"})
        assert direct.returncode == 3

    def test_rch_request_timeout_bounds_a_request_to_an_rchd_that_hangs(self, fresh: Any) -> None:
        fresh.start()
        pid = json.loads(fresh.run("rch", "daemon", "status", "--json").stdout)["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            started = time.monotonic()
            ended = fresh.run("rch", "jobs", env={"RCH_REQUEST_TIMEOUT": "0.5"})
            assert ended.returncode == 4
            assert "did not answer within" in ended.stderr
            assert time.monotonic() - started < 20
        finally:
            os.kill(pid, signal.SIGCONT)


class TestTheWatch:
    """daemon.heartbeat_interval_sec (C-9)."""

    @pytest.mark.parametrize(("interval", "several"), [(1, True), (3600, False)])
    def test_looks_at_a_workers_health_as_often_as_the_key_says(
        self, fresh: Any, monkeypatch: pytest.MonkeyPatch, interval: int, several: bool
    ) -> None:
        from rch.config.places import places
        from rch.daemon import pool
        from rch.daemon.rchd import Rchd
        from rch.execute.executor import Executor
        from rch.execute.mock import MockExecutor
        from rch.fleet.model import Worker
        from rch.fleet.registry import load_registry
        from rch.paths import AbsPath

        asked: list[str] = []
        enough = threading.Event()

        class Watched(MockExecutor):
            def request(self, op: str, *rest: Any, **more: Any) -> Any:
                if op == "health" and self.worker.name == "a":
                    asked.append(op)
                    if len(asked) > 2:
                        enough.set()
                return super().request(op, *rest, **more)

        def make(worker: Worker) -> Executor:
            return Watched(worker)

        monkeypatch.setattr(pool, "PING_S", 0.05)
        for name in ("RCH_STATE_DIR", "RCH_INVENTORY", "XDG_CONFIG_HOME"):
            monkeypatch.setenv(name, fresh.env[name])
        fresh.user(f"[daemon]\nheartbeat_interval_sec = {interval}\n")
        load_registry(AbsPath(str(fresh.state)), AbsPath(str(fresh.inventory)))
        rchd = Rchd(places(dict(os.environ)), make_executor=make)
        rchd.pool.start()
        try:
            assert enough.wait(60 if several else 3) is several
            assert len(asked) >= 1
        finally:
            rchd.pool.stop()
            rchd.store.close()

    def test_measures_idle_workers_as_often_as_the_key_says(self, fresh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """daemon.benchmark_interval_hours (D-8); what an interval means is in tests/unit/daemon/test_measure.py."""
        from rch.config.places import places
        from rch.daemon import rchd as module

        told: list[float] = []
        monkeypatch.setattr(module, "Measurer", lambda *_, interval_s: told.append(interval_s))
        for name in ("RCH_STATE_DIR", "RCH_INVENTORY", "XDG_CONFIG_HOME"):
            monkeypatch.setenv(name, fresh.env[name])
        fresh.user("[daemon]\nbenchmark_interval_hours = 2\n")
        module.Rchd(places(dict(os.environ))).store.close()
        assert told == [7200.0]


def test_c_20_the_real_rchd_speaks_as_the_page_says(fresh: Any) -> None:
    """``rch status``, ``jobs`` and ``workers list`` of a living rchd, beside tests/unit/cli/test_json.py."""
    from rch.cli.document import LISTINGS

    fresh.makefile("echo built")
    fresh.start()
    assert fresh.exec("make").where == "b"
    with subprocess.Popen(
        ["rch", "exec", "--worker", "a", "--", "sleep", "100"], cwd=fresh.top, env=fresh.env, stderr=subprocess.PIPE
    ) as running:
        until = time.monotonic() + 60
        while not any(job["state"] == "running" for job in fresh.jobs()):
            assert time.monotonic() < until
        status = json.loads(fresh.run("rch", "status", "--json").stdout)
        running.terminate()
    assert set(LISTINGS["rch status"][1].split()) <= set(status)
    assert (status["active_compilations"], status["total_compilations"]) == (1, 2)
    workers = json.loads(fresh.run("rch", "workers", "list", "--json").stdout)
    for worker in (*workers, *status["workers"]):
        assert set(LISTINGS["rch workers list"][1].split()) <= set(worker)
    active = [job for worker in status["workers"] for job in worker["active_jobs"]]
    assert len(active) == 1
    for job in (*fresh.jobs(), *active):
        assert set(LISTINGS["rch jobs"][1].split()) <= set(job)
    heard = next(worker["last_heartbeat"] for worker in status["workers"] if worker["name"] == "a")
    assert time.strptime(heard, "%Y-%m-%dT%H:%M:%SZ")
