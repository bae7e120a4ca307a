"""``rch status``, ``queue``, ``jobs``, ``logs``, ``wait``, ``fetch``, ``cancel`` against a fake rchd."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rch.cli.jobs import exit_status
from rch.fleet.record import write_record
from rch.worker.protocol import STREAM_MARK, STREAM_STDERR, STREAM_STDOUT, log_frame

DOCUMENTED_JOB = [
    "id",
    "state",
    "products",
    "worker",
    "kind",
    "command",
    "cwd",
    "exit_status",
    "signal",
    "reason",
    "slots",
    "pushed",
    "returned",
    "times",
]
DOCUMENTED_WORKER = [
    "name",
    "host",
    "state",
    "slots_total",
    "slots_used",
    "speed_score",
    "tags",
    "toolchains",
    "last_heartbeat",
    "active_jobs",
    "reason",
]


class TestStatus:
    def test_shows_the_tree_of_daemon_and_workers(self, shell: Any, rchd: Any, make_worker: Any, make_job: Any) -> None:
        running = make_job("j-a1", state="running", exit_status=None)
        rchd.workers = [
            make_worker(active_jobs=[running]),
            make_worker(
                "yto", state="unreachable", reason="connect timed out", speed_score=None, slots_used=0, slots_total=8
            ),
        ]
        rchd.jobs = [running, make_job("j-q", state="queued", worker="")]
        ended = shell("status")
        assert ended.status == 0
        lines = ended.out.splitlines()
        assert lines[0] == "rch status"
        assert lines[1].startswith("├── Daemon: running (pid ")
        assert lines[1].endswith(", up 2 h 34 m)")
        assert lines[2] == "├── Active compilations: 3"
        assert "│   ├── css (203.0.113.20): healthy, 8/32 slots, score 87.3" in lines
        assert any(line.startswith("│   │   j-a1: cargo build (css, 4 slots, ") for line in lines)
        assert "│   └── yto (203.0.113.20): unreachable, 0/8 slots, connect timed out" in lines
        assert any("j-q: cargo build (queued" in line for line in lines)

    def test_with_json_is_the_documented_object(self, shell: Any, rchd: Any, make_worker: Any) -> None:
        rchd.workers = [make_worker()]
        found = shell("status", "--json").json
        assert found["running"] is True
        assert {"uptime_seconds", "active_compilations", "total_compilations", "workers"} <= set(found)
        assert set(DOCUMENTED_WORKER) <= set(found["workers"][0])

    def test_details_jobs_and_metrics_have_their_options(
        self, shell: Any, rchd: Any, make_worker: Any, make_job: Any
    ) -> None:
        rchd.workers = [make_worker(clock_offset_ms=3.04)]
        rchd.jobs = [make_job("j-a1", state="running")]
        rchd.status_more = {"today": {"builds": 12, "remote": 9, "cpu_seconds": 3700}}
        assert "rust: rustc 1.95.0" in shell("status", "-w").out
        assert "clock: +3.0 ms" in shell("status", "--workers").out
        assert shell("status", "-j").out.splitlines()[:2][0] == "Active jobs"
        assert "j-a1: cargo build (css, 4 slots, " in shell("status", "--jobs").out
        assert "builds today: 12, 9 remote" in shell("status", "-m").out

    def test_details_name_toolchains_that_drifted_from_the_lock(self, shell: Any, rchd: Any, make_worker: Any) -> None:
        lock = shell.home / ".config/rch/toolchain.toml"
        lock.parent.mkdir(parents=True)
        lock.write_text('[rust]\nmethod = "none"\n[cpp]\ngcc_version = "14"\n')
        facts = {"toolchains": {}, "programs": {"gcc": "gcc (Debian 12.2.0-14) 12.2.0"}}
        write_record(shell.state, "css", json.dumps(facts).encode())
        rchd.workers = [make_worker(), make_worker("yto")]
        drift = "cpp: gcc 14 is wanted, has gcc (Debian 12.2.0-14) 12.2.0"
        lines = [line.strip("│ ") for line in shell("status", "-w", PATH="/nowhere").out.splitlines()]
        (found,) = [line for line in lines if line.startswith("drift: ")]
        assert found == f"drift: {drift}; next: rch workers sync css"
        assert lines.index(found) < next(i for i, line in enumerate(lines) if "yto" in line)
        workers = shell("status", "-w", "--json", PATH="/nowhere").json["workers"]
        assert [one["drift"] for one in workers] == [[drift], []]
        assert "drift" not in shell("status").out
        write_record(shell.state, "css", json.dumps({**facts, "programs": {"gcc": "gcc (GCC) 14.1.0"}}).encode())
        assert "drift" not in shell("status", "-w", PATH="/nowhere").out

    def test_works_without_rchd_and_says_so_with_exit_1(self, shell: Any) -> None:
        ended = shell("status")
        assert ended.status == 1
        assert "Daemon: not running" in ended.out
        assert "rch daemon start" in ended.err
        ended = shell("status", "--json")
        assert ended.status == 1
        assert ended.json["running"] is False
        assert ended.json["workers"] == []

    def test_works_over_the_socket_that_a_killed_rchd_has_left(self, shell: Any, dead_socket: Any) -> None:
        assert dead_socket.exists()
        assert shell("status").status == 1

    def test_knows_the_workers_of_the_registry_without_rchd(self, shell: Any) -> None:
        shell("workers", "add", "--id", "css", "--host", "203.0.113.20", "--slots", "4")
        found = shell("status", "--json").json
        assert [one["name"] for one in found["workers"]] == ["css"]
        assert found["workers"][0]["state"] == "unknown"
        assert set(DOCUMENTED_WORKER) <= set(found["workers"][0])

    def test_what_a_worker_says_cannot_drive_the_terminal(self, shell: Any, rchd: Any, make_worker: Any) -> None:
        rchd.workers = [make_worker("css", reason="\x1b]0;owned\x07\x1b[2J", tags=["a\x1b[1m"])]
        for words in (["status", "-w"], ["workers", "list"]):
            assert "\x1b" not in shell(*words).out


class TestJobs:
    def test_are_listed_in_stable_columns(self, shell: Any, rchd: Any, make_job: Any) -> None:
        rchd.jobs = [
            make_job("j-2", state="failed", exit_status=101, products="none"),
            make_job("j-1", state="killed", exit_status=None, signal=9),
            make_job("j-0", state="running", exit_status=None),
        ]
        lines = shell("jobs").out.splitlines()
        assert lines[0].split() == ["JOB", "STATE", "WORKER", "EXIT", "PRODUCTS", "TIME", "PROJECT", "COMMAND"]
        assert lines[1].split() == ["j-2", "failed", "css", "101", "none", "45", "s", "-", "cargo", "build"]
        assert lines[2].split()[3] == "137"
        assert lines[3].split()[3] == "-"

    def test_as_json_have_the_documented_keys(self, shell: Any, rchd: Any, make_job: Any) -> None:
        rchd.jobs = [make_job()]
        found = shell("jobs", "--json").json
        assert set(DOCUMENTED_JOB) <= set(found[0])

    def test_can_be_picked(self, shell: Any, rchd: Any, make_job: Any) -> None:
        rchd.jobs = [
            make_job("a", state="running"),
            make_job("b", products="undelivered"),
            make_job("c", state="queued"),
        ]
        assert [one["id"] for one in shell("jobs", "--json", "--undelivered").json] == ["b"]
        assert [one["id"] for one in shell("jobs", "--json", "--active").json] == ["a", "c"]
        assert [one["id"] for one in shell("queue", "--json").json] == ["c"]

    def test_that_are_none_are_an_empty_array(self, shell: Any, rchd: Any) -> None:
        assert shell("jobs", "--json").json == []
        assert shell("jobs").err == "no jobs\n"

    @pytest.mark.parametrize(
        "words", [["jobs"], ["queue"], ["logs", "j"], ["wait", "j"], ["fetch", "j"], ["cancel", "j"]]
    )
    def test_need_rchd_and_say_so_in_one_line_with_exit_4(self, shell: Any, words: list[str]) -> None:
        ended = shell(*words)
        assert ended.status == 4
        assert ended.err == "rch: error[Unreachable] rchd is not running; next: rch daemon start\n"
        assert ended.out == ""

    @pytest.mark.parametrize("words", [["logs", "nope"], ["wait", "nope"], ["fetch", "nope"], ["cancel", "nope"]])
    def test_that_are_unknown_are_exit_6(self, shell: Any, rchd: Any, words: list[str]) -> None:
        ended = shell(*words)
        assert ended.status == 6
        assert ended.err.startswith("rch: error[NoSuchJob] ")


class TestLogs:
    def test_give_each_stream_its_bytes_in_order_wherever_the_chunks_are_cut(
        self, shell: Any, rchd: Any, make_job: Any
    ) -> None:
        rchd.jobs = [make_job()]
        whole = (
            log_frame(STREAM_STDOUT, b"out 1\n", 1)
            + log_frame(STREAM_MARK, b"{}", 2)
            + log_frame(STREAM_STDERR, b"err \xff\n", 3)
            + log_frame(STREAM_STDOUT, b"no newline", 4)
        )
        rchd.logs["j-1"] = [whole[:5], whole[5:23], whole[23:40], whole[40:]]
        ended = shell("logs", "j-1")
        assert (ended.status, ended.out) == (0, "out 1\nno newline")
        assert ended.err.encode("utf-8", "surrogateescape") == b"err \xff\n"

    def test_as_json_are_one_object_a_piece_with_the_offset_after_it(
        self, shell: Any, rchd: Any, make_job: Any
    ) -> None:
        rchd.jobs = [make_job()]
        rchd.logs["j-1"] = [
            log_frame(STREAM_STDOUT, b"abc", 1_500_000_000),
            log_frame(STREAM_STDERR, b"x", 2_000_000_000),
        ]
        rows = [json.loads(line) for line in shell("logs", "j-1", "--json").out.splitlines()]
        assert rows == [
            {"offset": 19, "stream": "stdout", "time": 1.5, "text": "abc"},
            {"offset": 36, "stream": "stderr", "time": 2.0, "text": "x"},
        ]

    def test_are_asked_for_by_offset_and_followed(self, shell: Any, rchd: Any, make_job: Any) -> None:
        rchd.jobs = [make_job()]
        rchd.logs["j-1"] = []
        shell("logs", "css:j-1", "-f", "--offset", "19")
        assert rchd.asked[-1][1] == "/v1/jobs/j-1/log?offset=19&follow=1"


class TestWaiting:
    @pytest.mark.parametrize(
        ("changes", "status"),
        [
            ({}, 0),
            ({"state": "failed", "exit_status": 42}, 42),
            ({"state": "failed", "exit_status": 101, "products": "undelivered"}, 101),
            ({"state": "killed", "exit_status": None, "signal": 9}, 137),
            ({"state": "timeout", "exit_status": None, "signal": 15}, 124),
            ({"state": "done", "products": "undelivered"}, 102),
            ({"state": "lost", "exit_status": None}, 1),
            ({"state": "oom", "exit_status": None, "signal": 9}, 137),
        ],
    )
    def test_for_one_job_ends_as_the_job(
        self, shell: Any, rchd: Any, make_job: Any, changes: dict[str, Any], status: int
    ) -> None:
        rchd.jobs = [make_job(**changes)]
        assert shell("wait", "j-1").status == status
        assert exit_status(make_job(**changes)) == status

    def test_for_several_is_0_or_1(self, shell: Any, rchd: Any, make_job: Any) -> None:
        rchd.jobs = [make_job("a"), make_job("b"), make_job("c", state="failed", exit_status=42)]
        assert shell("wait", "a", "b").status == 0
        assert shell("wait", "a", "c").status == 1

    def test_names_the_next_step_where_products_wait(self, shell: Any, rchd: Any, make_job: Any) -> None:
        rchd.jobs = [make_job(products="undelivered")]
        assert shell("wait", "j-1").err.endswith("next: rch fetch j-1\n")

    def test_has_a_limit_of_its_own(self, shell: Any, rchd: Any, make_job: Any) -> None:
        rchd.jobs = [make_job(state="running")]
        assert shell("wait", "j-1", "--timeout", "0").status == 124

    def test_sees_the_end_that_comes_later(self, shell: Any, rchd: Any, make_job: Any) -> None:
        import threading

        rchd.jobs = [make_job(state="running", exit_status=None)]
        timer = threading.Timer(0.7, lambda: rchd.jobs[0].update(state="failed", exit_status=3))
        timer.start()
        assert shell("wait", "j-1").status == 3
        timer.join()


class TestFetchAndCancel:
    def test_fetch_completes_the_return(self, shell: Any, rchd: Any, make_job: Any) -> None:
        rchd.jobs = [make_job(products="undelivered")]
        ended = shell("fetch", "j-1")
        assert ended.status == 0
        assert "products verified, 7 files, 11.8 MB" in ended.err

    def test_cancel_sends_the_signal(self, shell: Any, rchd: Any, make_job: Any) -> None:
        rchd.jobs = [make_job(state="running")]
        ended = shell("cancel", "css:j-1", "--signal", "INT")
        assert ended.status == 0
        assert rchd.asked[-1] == ("POST", "/v1/jobs/j-1/signal", {"signal": "INT"})
        assert ended.err == "j-1: cancelled\n"

    def test_cancel_all_takes_what_has_not_ended(self, shell: Any, rchd: Any, make_job: Any) -> None:
        rchd.jobs = [make_job("a", state="running"), make_job("b"), make_job("c", state="queued")]
        shell("cancel", "--all")
        signalled = [path for method, path, _ in rchd.asked if method == "POST"]
        assert signalled == ["/v1/jobs/a/signal", "/v1/jobs/c/signal"]

    @pytest.mark.parametrize("words", [["cancel"], ["cancel", "j", "--all"], ["cancel", "j", "--signal", "NOPE"]])
    def test_cancel_refuses_what_is_unclear(self, shell: Any, words: list[str]) -> None:
        assert shell(*words).status == 2


class TestABrokenRchd:
    @pytest.mark.parametrize("data", [b"not json", b"", b"[" * 100_000])
    def test_that_answers_nonsense_is_one_line(self, shell: Any, rchd: Any, data: bytes) -> None:
        rchd.broken["/v1/jobs"] = (200, data)
        ended = shell("jobs")
        assert ended.status == 1
        assert ended.err.startswith("rch: error[Fault] rchd's answer to /v1/jobs")
        assert ended.err.count("\n") == 1

    def test_that_answers_an_error_without_our_form_is_one_line(self, shell: Any, rchd: Any) -> None:
        rchd.broken["/v1/jobs"] = (500, b"Server got \x1b[31m itself in trouble\n\nmore")
        ended = shell("jobs")
        assert ended.status == 1
        assert ended.err.count("\n") == 1
        assert "\x1b" not in ended.err

    def test_that_does_not_answer_in_time_is_exit_4(self, shell: Any) -> None:
        import socket

        run = shell.state / "run"
        run.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.bind(str(run / "rchd.sock"))
            deaf.listen()
            ended = shell("jobs", RCH_REQUEST_TIMEOUT="0.3")
        assert ended.status == 4
        assert "did not answer within" in ended.err
