"""``rch doctor``: each symptom is made, found, and ends in a command to try."""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from rch import __version__
from rch.cli.check import FAIL, OK, WARN, Check
from rch.cli.checks_here import check_agent, check_programs, check_socket_path, check_state
from rch.cli.checks_rchd import check_port
from rch.cli.checks_workers import check_worker, probe_all
from rch.config.places import places
from rch.errors import Unreachable, VersionMismatch
from rch.fleet.model import Declared, Observed, Registry, Worker
from rch.paths import AbsPath
from rch.worker.protocol import hash_bytes


def examine(shell: Any, *words: str, **env: str) -> dict[str, dict[str, Any]]:
    """All checks by name (the last of a name wins)."""
    ended = shell("doctor", "--json", *words, **env)
    rows = ended.json
    for row in rows:
        assert set(row) >= {"name", "status", "finding", "remedy", "fixable"}
        assert row["status"] in (OK, WARN, FAIL)
        assert bool(row["remedy"]) == (row["status"] != OK), row
        assert "\n" not in row["finding"]
    assert ended.status == (1 if any(row["status"] == FAIL for row in rows) else 0)
    return {row["name"]: row for row in rows}


def here(shell: Any, **env: str) -> dict[str, dict[str, Any]]:
    return examine(shell, "--no-workers", **env)


class TestThisMachine:
    def test_of_a_newcomer_has_no_failure_but_what_is_missing(self, shell: Any) -> None:
        found = here(shell)
        assert {name for name, row in found.items() if row["status"] == FAIL} <= {"program:ssh", "program:rsync"}
        assert found["rchd"]["status"] == WARN
        assert found["rchd"]["remedy"] == "rch daemon start"
        assert found["inventory"]["status"] == WARN

    def test_a_state_directory_that_others_may_read_is_mended(self, shell: Any) -> None:
        shell.state.mkdir(mode=0o755)
        shell.state.chmod(0o755)
        assert here(shell)["state-dir"]["status"] == FAIL
        found = {
            row["name"]: row for row in shell("doctor", "--no-workers", "--fix", "--json", RCH_ON_WORKER="1").json
        }  # RCH_ON_WORKER: rchd is not started here
        assert found["state-dir"]["fixed"] == "done"
        assert found["state-dir"]["status"] == OK
        assert found["rchd"]["fixed"].startswith("failed: rchd does not start inside a job")
        assert shell.state.stat().st_mode & 0o777 == 0o700

    def test_a_state_directory_of_another_user_is_found(self, shell: Any) -> None:
        shell.state.mkdir(mode=0o700)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "getuid", lambda: 12345)
            found = {check.name: check for check in check_state(places(shell.env))}
        assert found["state-dir"].status == FAIL

    def test_ds_04_a_socket_path_too_long_is_found_with_its_length(self, shell: Any) -> None:
        check = check_socket_path("/" + "x" * 120)
        assert (check.status, "121 bytes" in check.finding) == (FAIL, True)
        assert here(shell, RCH_STATE_DIR="/tmp/" + "x" * 120)["socket-path"]["status"] == FAIL

    def test_a_missing_program_is_found(self, tmp_path: Path) -> None:
        found = {check.name: check.status for check in check_programs(str(tmp_path))}
        assert found == {"program:ssh": FAIL, "program:rsync": FAIL, "program:git": WARN, "program:zstd": WARN}

    def test_a_broken_configuration_is_found_with_file_and_line(self, shell: Any) -> None:
        file = shell.cwd / ".rch/config.toml"
        file.parent.mkdir()
        file.write_text("[transfer]\ngitt = 1\n")
        row = here(shell)["config"]
        assert row["status"] == FAIL
        assert f"{file}:2" in row["finding"]

    def test_a_variable_that_means_nothing_or_is_wrong_is_found(self, shell: Any) -> None:
        row = here(shell, RCH_LOCALONLY="1")["environment"]
        assert (row["status"], row["remedy"]) == (WARN, "unset RCH_LOCALONLY")
        assert "did you mean RCH_LOCAL_ONLY?" in row["finding"]
        assert here(shell, RCH_COMPRESSION="99")["environment"]["status"] == FAIL
        assert here(shell, RCH_STATE_DIR="relative")["environment"]["status"] == FAIL

    def test_an_untrusted_file_and_a_switched_off_rch_are_found(self, shell: Any) -> None:
        file = shell.cwd / ".rch/config.toml"
        file.parent.mkdir()
        file.write_text("[hooks]\npre_transfer = 'x'\n[project]\nlocal_only = true\n")
        found = here(shell)
        assert found["trust"]["remedy"] == "rch config trust"
        assert found["enabled"]["status"] == WARN

    def test_the_project_of_another_directory_can_be_asked_about(self, shell: Any, tmp_path: Path) -> None:
        (tmp_path / ".rch").mkdir()
        (tmp_path / ".rch/config.toml").write_text("nonsense = 1")
        assert here(shell)["config"]["status"] == OK
        assert examine(shell, "--no-workers", str(tmp_path))["config"]["status"] == FAIL


class TestTheAgent:
    def test_ds_10_that_has_gone_is_found_here_and_for_rchd(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import rch.cli.checks_here as module

        gone = str(tmp_path / "gone.sock")
        alive = socket.socket(socket.AF_UNIX)
        alive.bind(str(tmp_path / "alive.sock"))
        alive.listen()
        monkeypatch.setattr(module, "environment_of", lambda _: {"SSH_AUTH_SOCK": gone})
        found = {check.name: check for check in check_agent({"SSH_AUTH_SOCK": str(tmp_path / "alive.sock")}, 1)}
        assert found["ssh-agent"].status == OK
        assert found["ssh-agent-of-rchd"].remedy == "rch daemon restart"
        alive.close()
        found = {check.name: check for check in check_agent({"SSH_AUTH_SOCK": gone}, None)}
        assert found["ssh-agent"].status == WARN
        assert list(check_agent({}, None)) == []


class TestTheInventory:
    def test_that_is_missing_or_broken_is_found(self, shell: Any) -> None:
        assert here(shell, RCH_INVENTORY="/does/not/exist")["inventory"]["status"] == FAIL
        (shell.inventory / "hosts.yml").write_text("all: [\n")
        row = here(shell)["inventory"]
        assert row["status"] == FAIL
        assert "hosts.yml" in row["finding"]

    def test_that_is_newer_than_the_registry_is_found_and_mended(self, shell: Any) -> None:
        shell("workers", "add", "--id", "css", "--host", "x")
        assert "registry" not in here(shell)
        file = shell.inventory / "hosts.yml"
        file.write_text(file.read_text().replace("{ansible_host: x}", "{ansible_host: y}"))
        row = here(shell)["registry"]
        assert (row["status"], row["fixable"]) == (WARN, True)
        assert here(shell)["registry"]["status"] == WARN, "looking changes nothing"
        shell("doctor", "--no-workers", "--fix", RCH_ON_WORKER="1")
        assert "registry" not in here(shell)

    def test_without_workers_names_hosts_that_could_be_asked_unless_that_is_switched_off(self, shell: Any) -> None:
        (shell.home / ".ssh").mkdir()
        (shell.home / ".ssh/config").write_text("Host css\n")
        row = here(shell)["inventory"]
        assert row["status"] == WARN
        assert row["finding"].endswith("has no workers; ~/.ssh/config and aliases know css")
        assert row["remedy"] == "rch init"
        assert shell("config", "set", "--user", "workers.discovery_enabled", "false").status == 0
        row = here(shell)["inventory"]
        assert row["finding"].endswith("has no workers")
        assert row["remedy"] == "rch init NAME=USER@HOST"

    def test_a_key_that_is_missing_or_open_to_others_is_found(self, shell: Any) -> None:
        key = shell.home / "key"
        (shell.inventory / "hosts.yml").write_text(
            f"all:\n  children:\n    rch_workers:\n      hosts:\n        css: {{ansible_host: x, rch_ssh_key: {key}}}\n"
        )
        assert here(shell)["worker:css:key"]["status"] == FAIL
        key.write_text("k")
        key.chmod(0o644)
        row = here(shell)["worker:css:key"]
        assert (row["status"], row["remedy"]) == (FAIL, f"chmod 600 {key}")
        assert "0644" in row["finding"]
        shell("doctor", "--no-workers", "--fix", RCH_ON_WORKER="1")
        assert here(shell)["worker:css:key"]["status"] == OK
        assert key.stat().st_mode & 0o777 == 0o600


class TestRchd:
    def test_of_another_version_is_found(self, shell: Any, rchd: Any) -> None:
        row = here(shell)["rchd"]
        assert (row["status"], row["remedy"]) == (FAIL, "rch daemon restart")
        rchd.status_more = {"version": __version__}
        assert here(shell)["rchd"]["status"] == OK

    def test_with_an_inventory_error_is_found(self, shell: Any, rchd: Any) -> None:
        rchd.status_more = {"version": __version__, "registry_error": "hosts.yml:3: broken"}
        assert here(shell)["rchd-registry"]["finding"] == "hosts.yml:3: broken"

    def test_that_was_started_with_other_variables_is_found(self, shell: Any, rchd: Any) -> None:
        # The fake is this process, so /proc shows what pytest was started with: no RCH_INVENTORY.
        row = here(shell)["rchd-environment"]
        assert row["status"] == WARN
        assert "RCH_" in row["finding"]

    def test_that_holds_the_lock_but_does_not_listen_is_found(self, shell: Any) -> None:
        import fcntl

        shell.state.mkdir(mode=0o700)
        with open(shell.state / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            row = here(shell)["rchd"]
        assert row["status"] == FAIL
        assert row["remedy"].startswith(f"kill {os.getpid()}")

    def test_whose_socket_another_program_holds_names_that_one(self, shell: Any) -> None:
        shell.state.mkdir(mode=0o700)
        (shell.state / "run").mkdir(mode=0o700)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(shell.state / "run/rchd.sock"))
            other.listen()

            def answer() -> None:
                with other.accept()[0] as connection:
                    connection.sendall(b"220 mail.example ESMTP\r\n")

            thread = threading.Thread(target=answer, daemon=True)
            thread.start()
            row = here(shell)["rchd"]
            thread.join(timeout=10)
        assert row["status"] == FAIL
        assert f"rchd.sock is held by pid {os.getpid()} (" in row["finding"]
        assert row["remedy"] == f"kill {os.getpid()}; rch daemon start"

    def test_whose_port_another_program_holds_names_that_one(self, shell: Any) -> None:
        assert "port" not in here(shell)
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            assert shell("config", "set", "--user", "metrics.prometheus_port", str(port)).status == 0
            row = here(shell)["port"]
            assert row["status"] == FAIL
            assert row["finding"].startswith(f"port {port} (metrics.prometheus_port) is held by pid {os.getpid()} (")
            assert row["remedy"].startswith(f"kill {os.getpid()}, or rch config set ")
            assert [check.status for check in check_port(port, os.getpid())] == [OK], "rchd's own"
        assert here(shell)["port"]["status"] == OK

    def test_without_a_worker_that_can_take_a_job_names_each_with_its_reason(
        self, shell: Any, rchd: Any, make_worker: Any
    ) -> None:
        rchd.workers = [make_worker(slots_used=32), make_worker("yto", state="unreachable", reason="no route")]
        row = here(shell)["capacity"]
        assert (row["status"], row["remedy"]) == (WARN, "rch queue, or one more: rch init NAME=USER@HOST")
        assert "css has no free slot (32/32); yto is unreachable (no route)" in row["finding"]
        rchd.workers = [make_worker(state="disabled"), make_worker("yto", state="draining")]
        assert here(shell)["capacity"]["remedy"] == "rch workers enable --all"
        rchd.workers = [make_worker(), make_worker("yto", state="draining")]
        assert here(shell)["capacity"]["status"] == OK

    def test_asks_for_the_workers_once_more_when_it_has_probed_them(
        self, shell: Any, rchd: Any, make_worker: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A worker that was away and answers is no finding: a probe brings it back."""
        (shell.inventory / "hosts.yml").write_text("all: {children: {rch_workers: {hosts: {css: {}}}}}\n")
        rchd.workers = [make_worker(state="unreachable", reason="refused")]
        plain = rchd.answer

        def answer(method: str, path: str, body: Any) -> tuple[int, Any]:
            if path.endswith("/css/probe"):
                rchd.workers = [make_worker()]
                return 200, {"name": "css", "ok": True, "control": {"ok": True}, "bulk": {"ok": True}}
            found: tuple[int, Any] = plain(method, path, body)
            return found

        monkeypatch.setattr(rchd, "answer", answer)
        assert examine(shell)["capacity"]["status"] == OK

    def test_with_undelivered_jobs_is_found(self, shell: Any, rchd: Any, make_job: Any) -> None:
        rchd.jobs = [make_job("j-7", products="undelivered"), make_job("j-8")]
        rchd.probes = {"css": {"ok": True, "health": {"disk_free": 9_000_000}}}
        row = here(shell)["undelivered"]
        assert row["status"] == FAIL
        assert row["remedy"] == "rch fetch j-7; where the disk there is full, first: rch fleet gc"
        assert row["finding"].endswith(" here, not asked there)")
        rows = {one["name"]: one for one in shell("doctor", "--json").json}
        assert rows["undelivered"]["finding"].endswith(" here, 9.0 MB there)")

    def test_with_a_transfer_that_stopped_names_size_rate_and_the_largest_files(
        self, shell: Any, rchd: Any, make_job: Any, tmp_path: Path
    ) -> None:
        project = tmp_path / "app"
        (project / "data").mkdir(parents=True)
        for number in range(6):
            (project / f"data/{number}.bin").write_bytes(b"x" * 1000 * (number + 1))
        why = "css: push by rsync failed (30): rsync error: timeout in data send/receive (code 30)"
        stopped = {"cwd": str(project), "reason": why, "pushed": {"files": 12, "bytes": 8_000_000}}
        rchd.jobs = [
            make_job("j-8"),
            make_job("j-7", **stopped, times={"created": 10.0, "started": None, "ended": 14.0}),
        ]
        row = here(shell)["transfer"]
        assert row["status"] == WARN
        assert "j-7 on css: a transfer stopped (8.0 MB of 12 files had moved, 2.0 MB/s)" in row["finding"]
        assert (
            "data/5.bin 6.0 kB, data/4.bin 5.0 kB, data/3.bin 4.0 kB, data/2.bin 3.0 kB, data/1.bin 2.0 kB"
            in row["finding"]
        )
        assert "0.bin" not in row["finding"]
        assert "transfer.timeout_sec 600" in row["remedy"]
        assert shell("config", "set", "--user", "transfer.timeout_sec", "600").status == 0
        rchd.jobs = [make_job("j-8")]
        assert "transfer" not in here(shell)

    def test_whose_socket_has_no_room_is_found(self, shell: Any) -> None:
        run = shell.state / "run"
        run.mkdir(parents=True, mode=0o700)
        shell.state.chmod(0o700)
        (run / "rchd.sock").write_text("in the way")
        row = here(shell)["rchd"]
        assert row["status"] == FAIL
        assert "rchd.sock is no socket" in row["finding"]
        assert row["remedy"].endswith("rch daemon start")

    def test_knows_projects_that_stay_here(self, shell: Any) -> None:
        from rch.daemon.store import Mark, Store
        from rch.paths import AbsPath

        shell.state.mkdir(mode=0o700)
        store = Store(AbsPath(str(shell.state / "rch.db")))
        store.mark_unportable(Mark("app", "debian-12-x86_64", "css", "e1", "needs foo.h"))
        store.close()
        row = here(shell)["unportable"]
        assert (row["status"], row["fixable"]) == (WARN, True)
        assert "app stays here instead of debian-12-x86_64: needs foo.h" in row["finding"]

    def test_lets_them_try_again(self, shell: Any, rchd: Any) -> None:
        from rch.daemon.store import Mark, Store
        from rch.paths import AbsPath

        store = Store(AbsPath(str(shell.state / "rch.db")))
        store.mark_unportable(Mark("app", "debian-12-x86_64", "css", "e1", "needs foo.h"))
        store.close()
        shell("doctor", "--no-workers", "--fix")
        assert ("POST", "/v1/unportable/forget", {}) in rchd.asked

    def test_with_a_damaged_store_is_found(self, shell: Any) -> None:
        shell.state.mkdir(mode=0o700)
        (shell.state / "rch.db").write_bytes(b"not a database, and long enough to be looked at" * 20)
        assert here(shell)["store"]["status"] == WARN
        with pytest.raises(sqlite3.DatabaseError):
            sqlite3.connect(shell.state / "rch.db").execute("SELECT 1 FROM history").fetchall()


RUST = "rustc 1.95.0 (x)\nhost: x86_64-unknown-linux-gnu"
HEALTHY: dict[str, Any] = {
    "ok": True,
    "control": {"ok": True},
    "bulk": {"ok": True},
    "version": "0.1.0",
    "sandbox": {"ok": True, "why": ""},
    "clock_offset_ms": 3.0,
    "health": {"disk_free": 100_000_000_000},
    "facts": {"toolchains": {"rust": [{"identity": RUST, "shown": "rustc 1.95.0"}]}},
}


def look(observed: dict[str, Any] | None = None, **changes: Any) -> dict[str, Check]:
    one = Worker(Declared("css", "203.0.113.20"), Observed(observed or {}))
    return {
        check.name.removeprefix("worker:css:"): check
        for check in check_worker(one, {**HEALTHY, **changes}, {"rust": RUST})
    }


def refused(error: str, kind: str = "Unreachable", hint: str = "") -> dict[str, Any]:
    return {"ok": False, "error": error, "class": kind, "hint": hint}


class TestAWorker:
    def test_that_is_well_is_ok_throughout(self) -> None:
        found = look()
        assert {check.status for check in found.values()} == {OK}
        assert set(found) == {"control", "bulk", "sandbox", "clock", "disk", "toolchain:rust"}

    @pytest.mark.parametrize(
        ("control", "name"),
        [
            (refused("css: rch@x:22: connect timed out after 5 s", hint="rch workers probe css"), "unreachable"),
            (refused("css: rch@x:22: the key was refused", hint="set rch_ssh_key"), "key"),
            (refused("css: rch@x:22: the host key has changed", hint="ssh-keygen -R x"), "host-key"),
            (refused("css: rch@x:22: the host key is not known"), "host-key"),
            (refused("css: rch-wkr is not there", "ToolMissing"), "rch-wkr"),
            (refused("css: speaks protocol 2, we 1", "VersionMismatch"), "rch-wkr"),
        ],
    )
    def test_that_cannot_be_reached_is_one_failure_with_its_kind_and_remedy(
        self, control: dict[str, Any], name: str
    ) -> None:
        (check,) = look(control=control, ok=False).values()
        assert (check.name, check.status) == (f"worker:css:{name}", FAIL)
        assert check.finding.startswith("css: ")
        assert check.remedy == (control["hint"] or "rch fleet apply --limit css")

    @pytest.mark.parametrize("plane", ["control", "bulk"])
    def test_that_refuses_the_key_names_account_key_agent_and_plane(
        self, plane: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = tmp_path / "key"
        key.touch(mode=0o640)
        key.chmod(0o640)
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        worker = Worker(Declared("css", "x", user="rch", ssh_key=AbsPath(str(key))))
        answer = {**HEALTHY, plane: refused("css: rch@x: Permission denied (publickey)")}
        found = {check.name: check for check in check_worker(worker, answer, {})}
        check = found["worker:css:key"]
        assert check.status == FAIL
        assert f"(account rch, key {key}, mode 0640, no agent; {plane} plane)" in check.finding
        assert check.remedy == "rch fleet apply --limit css, or set rch_ssh_key, or: ssh-add"

    def test_without_rsync_is_found(self) -> None:
        check = look(bulk=refused("css: rsync is not installed there", "ToolMissing"))["rsync"]
        assert check.status == FAIL
        assert "only the control plane gets in" in check.finding

    def test_without_a_sandbox_is_found(self) -> None:
        check = look(sandbox={"ok": False, "why": "bwrap is not installed"})["sandbox"]
        assert (check.status, "bwrap is not installed" in check.finding) == (FAIL, True)

    @pytest.mark.parametrize(
        ("offset", "status"), [(0.0, OK), (249.0, OK), (300.0, WARN), (-900.0, WARN), (1001.0, FAIL), (-4200.0, FAIL)]
    )
    def test_with_a_wrong_clock_is_found(self, offset: float, status: str) -> None:
        check = look(clock_offset_ms=offset)["clock"]
        assert check.status == status
        assert ("ahead" if offset > 0 else "behind") in check.finding

    @pytest.mark.parametrize(("free", "status"), [(100e9, OK), (3e9, WARN), (1e8, FAIL)])
    def test_with_a_full_disk_is_found(self, free: float, status: str) -> None:
        assert look(health={"disk_free": free})["disk"].status == status

    def test_with_another_toolchain_is_found(self) -> None:
        other = {"toolchains": {"rust": [{"identity": "rustc 1.94.1 (y)", "shown": "rustc 1.94.1"}]}}
        check = look(facts=other)["toolchain:rust"]
        assert check.status == WARN
        assert "rustc 1.95.0 (x)" in check.finding
        assert "rustc 1.94.1" in check.finding
        assert "there none" in look(facts={})["toolchain:rust"].finding
        assert look(facts={}, observed=HEALTHY["facts"])["toolchain:rust"].status == OK, "the record counts too"

    @pytest.mark.parametrize(
        "nonsense",
        [
            {"control": 3},
            {
                "control": {"ok": True},
                "bulk": "x",
                "sandbox": [],
                "health": None,
                "facts": 7,
                "clock_offset_ms": "late",
            },
        ],
    )
    def test_that_answers_nonsense_does_not_end_the_examination(self, nonsense: dict[str, Any]) -> None:
        assert look(**nonsense)

    def test_whose_probe_fails_in_any_way_is_a_finding(self) -> None:
        registry = Registry({name: Worker(Declared(name, "x")) for name in ("a", "b", "c")}, hash_bytes(b""))

        def probe(worker: Worker) -> dict[str, Any]:
            if worker.name == "a":
                raise Unreachable("a: no route", host="a")
            if worker.name == "b":
                raise VersionMismatch("b: speaks 2", host="b")
            raise RuntimeError("bug")

        answers = probe_all(registry, probe)
        assert [answers[name]["ok"] for name in ("a", "b", "c")] == [False, False, False]
        assert "RuntimeError: bug" in answers["c"]["control"]["error"]

    def test_is_probed_through_rchd_where_it_runs(self, shell: Any, rchd: Any, make_worker: Any) -> None:
        rchd.status_more = {"version": __version__}
        shell("workers", "add", "--id", "css", "--host", "203.0.113.20")
        rchd.workers = [make_worker()]
        rchd.probes = {"css": {**HEALTHY, "clock_offset_ms": 4200.0}}
        found = examine(shell)
        assert found["worker:css:control"]["status"] == OK
        assert found["worker:css:clock"]["status"] == FAIL


class TestTheText:
    def test_shows_what_is_wrong_with_the_command_to_try_and_counts(self, shell: Any) -> None:
        ended = shell("doctor", "--no-workers")
        assert "warn  rchd: rchd is not running\n      try: rch daemon start\n" in ended.out
        assert "ok    config" not in ended.out
        assert ended.out.splitlines()[-1].endswith("(-v shows all)")
        assert "ok    config: no file, defaults" in shell("doctor", "--no-workers", "-v").out
