"""What is made of a run's events: counts, changes, and one line that names host and remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rch.errors import Provisioning
from rch.fleet.run import Change, Outcome, _Events


def event(kind: str, **data: Any) -> dict[str, Any]:
    return {"event": kind, "stdout": "", "event_data": data}


def ok(host: str, task: str, role: str = "", **result: Any) -> dict[str, Any]:
    return event("runner_on_ok", host=host, task=task, role=role, res=result)


def failed(host: str, task: str, message: Any, **more: Any) -> dict[str, Any]:
    result = {"msg": message, **more.pop("res", {})}
    return event("runner_on_failed", host=host, task=task, role="", res=result, **more)


def outcome(*events: dict[str, Any], status: str = "failed", log: str = "/log") -> Outcome:
    seen = _Events("site", lambda _: None, lambda _: None)
    for one in events:
        assert seen(one) is True  # None would make the runner forget the event
    return Outcome("site", status, seen.hosts, tuple(seen.changes), tuple(seen.failures()), 1.0, log)


def stats(**counts: dict[str, int]) -> dict[str, Any]:
    return event("playbook_on_stats", **counts)


def line(found: Outcome) -> str:
    with pytest.raises(Provisioning) as caught:
        found.check()
    assert caught.value.exit_status == 5
    text = caught.value.one_line()
    assert "\n" not in text
    return text


class TestChanges:
    @pytest.mark.parametrize(
        ("result", "detail"),
        [
            ({"diff": {"before": {"path": "/a", "mode": "0755"}, "after": {"path": "/a", "mode": "0700"}}}, "/a: mode 0755 → 0700"),
            ({"diff": [{"before": "1.94.1\n", "after": "1.95.0\n", "after_header": "/v (content)"}]}, "/v: 1.94.1 → 1.95.0"),
            ({"diff": [{"before": "", "after": "a\nb\n", "after_header": "/f"}]}, "/f is new"),
            ({"diff": {"before": "a\nb\nc\n", "after": "a\nx\nc\n", "before_header": "/f"}}, "/f: 2 lines differ"),
            ({"msg": "would install rsync zstd"}, "would install rsync zstd"),
            ({}, ""),
            (
                {"results": [{"changed": True, "diff": {"before": {"path": p, "state": "absent"}, "after": {"path": p, "state": "directory"}}} for p in ("/a", "/b", "/c")]},
                "/a: state absent → directory; /b: state absent → directory and 1 more",
            ),
        ],
    )  # fmt: skip
    def test_say_what_became_of_what(self, result: dict[str, Any], detail: str) -> None:
        found = outcome(
            ok("css", "rch_worker : install | Make it", "rch_worker", changed=True, **result), status="successful"
        )
        assert found.changes == (Change("css", "rch_worker", "Make it", detail),)

    def test_are_only_what_changed(self) -> None:
        assert outcome(ok("css", "x", changed=False), status="successful").changes == ()


class TestAFailure:
    def test_names_the_host_once_and_takes_the_remedy_that_the_message_has(self) -> None:
        told = "css: has no Python 3; next: as root there, apt install python3. Nothing was changed on it."
        text = line(outcome(failed("css", "preflight | Refuse", told), stats(failures={"css": 1})))
        assert text == (
            "rch: error[Provisioning] css: has no Python 3. Nothing was changed on it; "
            "next: as root there, apt install python3"
        )

    def test_of_a_command_shows_its_last_word(self) -> None:
        text = line(
            outcome(
                failed("css", "install | Copy", "non-zero return code", res={"stderr": "rsync: x\nNo space left\n"}),
                stats(failures={"css": 1}),
            )
        )
        assert "css: Copy: non-zero return code: No space left; next: rch fleet apply --limit css -v" in text

    @pytest.mark.parametrize(
        ("told", "remedy"),
        [
            ("ubuntu@x: Permission denied (publickey).", "check ansible_user and ansible_ssh_private_key_file of css"),
            ("Host key verification failed.", "ssh css once, and compare the fingerprint"),
            ("ssh: Could not resolve hostname x", "correct ansible_host of css"),
            ("ssh: connect to host x port 22: Connection timed out", "ssh css, or take it out: rch workers remove css"),
        ],
    )
    def test_to_connect_has_a_remedy_of_its_own(self, told: str, remedy: str) -> None:
        gone = event(
            "runner_on_unreachable", host="css", task="x", res={"msg": f"Failed to connect to the host via ssh: {told}"}
        )
        text = line(outcome(gone, stats(dark={"css": 1})))
        assert f"css: cannot be reached: {told}; next: {remedy}" in text

    def test_that_was_rescued_or_ignored_is_none(self) -> None:
        found = outcome(
            failed("css", "preflight | Become root", "no"),
            failed("yto", "x", "bad", ignore_errors=True),
            stats(ok={"css": 3, "yto": 3}, rescued={"css": 1}, ignored={"yto": 1}),
            status="successful",
        )
        assert found.failures == ()
        found.check()
        cut_short = outcome(failed("yto", "x", "bad", ignore_errors=True), status="canceled")
        assert cut_short.failures == ()

    def test_of_several_hosts_names_them_all(self) -> None:
        found = outcome(
            failed("css", "a", "bad"), failed("yto", "b", "worse"), stats(failures={"css": 1, "yto": 1}, ok={"fmd": 2})
        )
        assert "css: a: bad (and yto)" in line(found)
        assert [found.came_through(name) for name in ("css", "yto", "fmd", "never-seen")] == [False, False, True, False]

    def test_before_the_first_task_is_told_in_ansibles_words(self, tmp_path: Path) -> None:
        log = tmp_path / "stdout"
        log.write_text("warning\n[ERROR]: Specified inventory, host pattern and/or --limit leaves us with no hosts\n")
        text = line(outcome(log=str(log)))
        assert "playbook site did not begin: Specified inventory" in text
        assert f"next: less {log}" in text

    def test_by_time_says_so(self) -> None:
        assert "was silent for 1800 s" in line(outcome(status="timeout"))
