"""``rch fleet plan`` as text, ``rch workers import``, ``rch inventory show --json``, completions, rch init's refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rch.cli.fleet import plan_lines
from rch.fleet.playbooks import known_tags
from rch.fleet.run import Change, Outcome

TOP = Path(__file__).parents[3]


def outcome(*changes: Change, hosts: tuple[str, ...] = ("css", "fmd", "localhost")) -> Outcome:
    return Outcome("site", "successful", {name: {"ok": 3} for name in hosts}, changes, (), 1.0, "/log")


class TestAPlan:
    def test_is_host_role_and_what_with_nothing_said_twice(self) -> None:
        lines = plan_lines(
            outcome(
                Change("localhost", "", "Compile the registry"),
                Change("fmd", "rch_worker", "Switch to the version", "3 → 4"),
                Change("css", "toolchain_rust", "Copy", "1.94.1 → 1.95.0"),
                Change("css", "toolchain_rust", "Write it down"),
                Change("css", "rch_worker", "Deploy"),
                Change("css", "rch_worker", "Deploy"),
            )
        )
        assert lines == [
            "css   toolchain_rust  Copy: 1.94.1 → 1.95.0",
            "                      Write it down",
            "      rch_worker      Deploy",
            "fmd   rch_worker      Switch to the version: 3 → 4",
            "here  -               Compile the registry",
            "2 of 2 hosts would change, nothing else. Apply with: rch fleet apply",
        ]

    def test_without_changes_says_so(self) -> None:
        assert plan_lines(outcome()) == ["nothing would change on 2 hosts"]

    @pytest.mark.parametrize("counts", [{"dark": 1}, {"ok": 4, "failures": 1}])
    def test_says_nothing_of_a_host_that_it_could_not_look_at(self, counts: dict[str, int]) -> None:
        change = Change("css", "rch_worker", "Deploy")
        for changes, last in (
            ((change,), "1 of 2 hosts would change; not known: fmd. Apply with: rch fleet apply"),
            ((), "nothing would change on 1 host; not known: fmd"),
        ):
            found = outcome(*changes)
            assert plan_lines(replace(found, hosts={**found.hosts, "fmd": counts}))[-1] == last
        found = outcome(hosts=("fmd", "localhost"))
        assert plan_lines(replace(found, hosts={**found.hosts, "fmd": counts})) == []

    def test_is_refused_a_tag_that_no_task_has(self, shell: Any) -> None:
        ended = shell("fleet", "apply", "--tag", "rch_wrker")
        assert (ended.status, ended.err.count("\n")) == (2, 1)
        assert "no task has the tag 'rch_wrker': a tag is a role, or" in ended.err
        assert ended.err.endswith("next: rch fleet apply --tag rch_worker\n")

    def test_knows_a_tag_for_each_purpose_of_a_role(self) -> None:
        known = known_tags()
        assert {"worker_base", "worker_base_install", "rch_worker_configure", "toolchain_rust_run"} <= set(known)
        assert not {"always", "never"} & set(known)

    def test_is_about_workers_that_exist(self, shell: Any) -> None:
        ended = shell("fleet", "plan")
        assert (ended.status, ended.err.count("\n")) == (2, 1)
        assert "has no workers; next: rch init" in ended.err
        (shell.inventory / "hosts.yml").write_text("all: {children: {rch_workers: {hosts: {css: {}, yto: {}}}}}\n")
        ended = shell("fleet", "apply", "--limit", "nope")
        assert ended.status == 2
        assert "no worker 'nope' (known: css, yto)" in ended.err


class TestImport:
    def test_writes_what_the_file_says_and_nothing_the_second_time(self, shell: Any) -> None:
        (shell.inventory / "hosts.yml").write_text("# ours\nall:\n  children:\n    rch_workers:\n      hosts: {}\n")
        ended = shell("workers", "import", str(TOP / "examples/workers.toml"))
        assert ended.status == 0, ended.err
        assert "css added to" in ended.out
        text = (shell.inventory / "hosts.yml").read_text()
        assert text.startswith("# ours\n")
        found = {one["name"]: one["declared"] for one in shell("inventory", "show", "--json").json["workers"]}
        assert set(found) == {"css", "yto", "fmd"}
        css = found["css"]
        assert (css["host"], css["slots"], css["priority"], css["tags"]) == ("203.0.113.20", 32, 100, ["heavy"])
        assert (css["slots_per_core"], css["connect_timeout_s"], css["user"]) == (1.0, 5, "rch")
        assert found["fmd"]["enabled"] is False
        again = shell("workers", "import", str(TOP / "examples/workers.toml"), "--json")
        assert again.json["inventory"] == f"{shell.inventory}/hosts.yml"
        assert again.json["added"] == again.json["changed"] == again.json["unknown"] == []
        assert (shell.inventory / "hosts.yml").read_text() == text

    def test_updates_what_the_file_says_otherwise_and_keeps_the_rest(self, shell: Any, tmp_path: Path) -> None:
        (shell.inventory / "hosts.yml").write_text(
            "all:\n  children:\n    rch_workers:\n      hosts:\n"
            "        css: {ansible_host: 192.0.2.1, rch_description: mine}   # in the cellar\n"
        )
        file = tmp_path / "w.toml"
        file.write_text(
            '[defaults]\nheartbeat_interval_sec = 12\n[[workers]]\nid = "css"\nhost = "192.0.2.2"\nzone = 1\n'
        )
        ended = shell("workers", "import", str(file), "--json")
        assert ended.json["added"] == []
        assert ended.json["changed"] == ["css: ansible_host", "daemon.heartbeat_interval_sec"]
        assert ended.json["unknown"] == ["workers.css.zone"]
        text = (shell.inventory / "hosts.yml").read_text()
        assert "css: {ansible_host: 192.0.2.2, rch_description: mine}   # in the cellar" in text
        assert shell("config", "get", "daemon.heartbeat_interval_sec").out == "12\n"

    def test_refuses_a_file_that_would_make_a_wrong_inventory(self, shell: Any, tmp_path: Path) -> None:
        before = "all: {children: {rch_workers: {hosts: {}}}}\n"
        (shell.inventory / "hosts.yml").write_text(before)
        file = tmp_path / "w.toml"
        file.write_text('[[workers]]\nid = "css"\nhost = "x"\ntotal_slots = 5000\n')
        ended = shell("workers", "import", str(file))
        assert ended.status == 2
        assert f"{file}: worker css: total_slots must be a whole number from 1 to 1024, got 5000" in ended.err
        assert (shell.inventory / "hosts.yml").read_text() == before


class TestWhereAValueComesFrom:
    def test_is_file_and_line_or_default(self, shell: Any) -> None:
        (shell.inventory / "hosts.yml").write_text(
            "all:\n  children:\n    rch_workers:\n      hosts:\n        css:\n          rch_slots: 8\n"
            "    heavy: {hosts: {css: {}}}\n"
        )
        groups = shell.inventory / "group_vars/rch_workers"
        groups.mkdir(parents=True)
        (groups / "registry.yml").write_text("---\nrch_cache_dir: ~/.rch\n")
        hosts = shell.inventory / "host_vars"
        hosts.mkdir()
        (hosts / "css.yml").write_text("ansible_host: 203.0.113.20\nansible_user: ubuntu\nansible_port: 2222\n")
        (worker,) = shell("inventory", "show", "--json").json["workers"]
        origins = worker["origins"]
        assert set(origins) == set(worker["declared"]) - {"name"}
        assert origins["slots"] == f"{shell.inventory}/hosts.yml:6"
        assert origins["cache_dir"] == f"{groups}/registry.yml:2"
        assert (origins["host"], origins["port"]) == (f"{hosts}/css.yml:1", f"{hosts}/css.yml:3")
        assert (origins["priority"], origins["tags"]) == ("default", "groups")
        # ansible_user is the administrator's; rchd's own account is the default.
        assert origins["user"] == "default"


class TestDiscover:
    def test_proposes_and_adds_nothing_unasked(self, shell: Any, tmp_path: Path) -> None:
        config = tmp_path / "ssh_config"
        config.write_text("Host dead\n  HostName 127.0.0.1\n  Port 1\n")
        (shell.inventory / "hosts.yml").write_text("all: {children: {rch_workers: {hosts: {}}}}\n")
        ended = shell("workers", "discover", "-F", str(config), "--json")
        assert ended.status == 0
        (row,) = [one for one in ended.json if one["name"] == "dead"]
        assert (row["usable"], row["port"], row["source"]) == (False, 1, str(config))
        assert "Connection refused" in row["reason"]
        assert shell("workers", "discover", "-F", str(config), "--add", "--yes", "dead").status == 0
        assert "dead" not in (shell.inventory / "hosts.yml").read_text()


class TestInit:
    def test_without_a_terminal_wants_yes(self, shell: Any) -> None:
        ended = shell("init", "css=me@203.0.113.20")
        assert ended.status == 2
        assert "no terminal to ask questions on; next: the same with --yes" in ended.err

    def test_stops_before_anything_when_a_named_host_is_not_there(self, shell: Any) -> None:
        before = "all: {children: {rch_workers: {hosts: {}}}}\n"
        (shell.inventory / "hosts.yml").write_text(before)
        ended = shell("init", "--yes", "css=me@127.0.0.1:1")
        assert ended.status == 4
        assert (
            "css: ssh: connect to host 127.0.0.1 port 1: Connection refused; next: ssh -p 1 me@127.0.0.1" in ended.err
        )
        assert (shell.inventory / "hosts.yml").read_text() == before

    def test_refuses_what_is_no_host(self, shell: Any) -> None:
        assert shell("init", "--yes", "a b@c").status == 2

    def test_refuses_a_key_that_is_no_file_before_it_looks_anywhere(self, shell: Any) -> None:
        ended = shell("init", "--yes", "css=me@127.0.0.1:1", "-i", "/no/key")
        assert ended.status == 2
        assert ended.err == "rch: error[UsageError] --identity-file /no/key is no file; next: ls -l /no/key\n"


class TestInstall:
    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["--worker-only", "--fleet"], "--worker-only is about this host"),
            (["css=me@203.0.113.20"], "next: rch install --fleet css=me@203.0.113.20"),
        ],
    )
    def test_refuses_what_makes_no_sense_together(self, shell: Any, words: list[str], told: str) -> None:
        ended = shell("install", "--yes", *words)
        assert (ended.status, told in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("kind", "mark"), [("bash", "complete -o nosort"), ("zsh", "#compdef rch"), ("fish", "complete ")]
)
def test_completions_are_there_and_answer(shell: Any, kind: str, mark: str) -> None:
    text = shell("completion", kind).out
    assert mark in text
    assert "_RCH_COMPLETE" in text
    answered = shell.process(_RCH_COMPLETE="bash_complete", COMP_WORDS="rch workers dis", COMP_CWORD="2")
    assert "plain,discover" in answered.out.splitlines()
    assert "plain,disable" in answered.out.splitlines()
