"""``rch workers`` and ``rch inventory``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rch.cli.workers import has_tags

COMMENTED = """\
# our fleet
all:
  children:
    rch_workers:
      hosts:
        # the fast one
        css: {ansible_host: 203.0.113.20, rch_slots: 32}   # in the cellar
    heavy:
      hosts:
        css: {}
"""


def probe(**changes: Any) -> dict[str, Any]:
    """What rchd answers to a probe."""
    return {
        "name": "css",
        "host": "203.0.113.20",
        "user": "rch",
        "control": {"ok": True, "seconds": 0.25, "error": "", "hint": ""},
        "bulk": {"ok": True, "seconds": 0.4, "error": "", "hint": ""},
        "version": "0.1.0",
        "protocol": 1,
        "python": "3.11.2",
        "slots_total": 32,
        "sandbox": {"ok": True, "why": ""},
        "clock_offset_ms": 3.2,
        "health": {"mem_total": 64_000_000_000, "disk_free": 500_000_000_000},
        "facts": {
            "hostname": "css",
            "kernel": "6.1.0",
            "machine": "x86_64",
            "os": {"id": "debian", "version_id": "12", "pretty_name": "Debian GNU/Linux 12 (bookworm)"},
            "cores": 32,
            "programs": {"zstd": "*** Zstandard CLI v1.5.4, by  X ***", "rsync": "rsync 3.2.7", "clang": None},
            "toolchains": {
                "rust": [{"identity": "rustc 1.95.0 (x)", "shown": "rustc 1.95.0", "binds": {}}],
                "c": [{"identity": "gcc …", "shown": "gcc 12.2.0", "binds": {}}],
            },
        },
        "ok": True,
        **changes,
    }


class TestList:
    def test_has_stable_columns(self, shell: Any, rchd: Any, make_worker: Any) -> None:
        rchd.workers = [make_worker(), make_worker("yto", state="degraded", speed_score=None, tags=[], toolchains={})]
        lines = shell("workers", "list").out.splitlines()
        assert lines[0].split() == ["NAME", "HOST", "STATE", "SLOTS", "SCORE", "TAGS", "TOOLCHAINS", "REASON"]
        assert lines[1].split() == ["css", "203.0.113.20", "healthy", "8/32", "87", "heavy", "rustc", "1.95.0"]
        assert lines[2].split() == ["yto", "203.0.113.20", "degraded", "8/32", "-", "-", "-"]

    def test_picks_by_tag(self, shell: Any, rchd: Any, make_worker: Any) -> None:
        rchd.workers = [make_worker("a", tags=["x", "y"]), make_worker("b", tags=["x"]), make_worker("c", tags=["z"])]

        def names(*tags: str) -> list[str]:
            words = [word for tag in tags for word in ("--tag", tag)]
            return [one["name"] for one in shell("workers", "list", "--json", *words).json]

        assert names("x") == ["a", "b"]
        assert names("x,y") == ["a"]
        assert names("x,!y") == ["b"]
        assert names("z", "y") == ["a", "c"]
        ended = shell("workers", "list", "--tag", "nope")
        assert ended.status == 2
        assert "known: x, y, z" in ended.err

    def test_without_rchd_lists_the_inventory(self, shell: Any) -> None:
        (shell.inventory / "hosts.yml").write_text(COMMENTED)
        shell("inventory", "show")
        ended = shell("workers", "list", "--json")
        assert (ended.status, [one["name"] for one in ended.json]) == (0, ["css"])

    def test_says_that_the_inventory_cannot_be_used(self, shell: Any) -> None:
        (shell.inventory / "hosts.yml").write_text("rch_workers:\n  host:\n    css: {}\n")
        ended = shell("workers", "list")
        assert ended.status == 0
        told = f"the inventory cannot be used: {shell.inventory}/hosts.yml:2: unknown key host in group rch_workers; "
        assert told in ended.err
        assert "no workers" not in ended.err

    def test_says_so_too_when_rchd_goes_on_with_an_older_one(self, shell: Any, rchd: Any, make_worker: Any) -> None:
        rchd.workers, rchd.status_more = [make_worker()], {"registry_error": "hosts.yml:2: x"}
        ended = shell("workers", "list")
        assert "css" in ended.out
        assert "the inventory cannot be used: hosts.yml:2: x; next: rch inventory show" in ended.err

    def test_tags_are_whole_words(self) -> None:
        assert not has_tags(["heavy-compute"], ["heavy"])
        assert has_tags([], ["!heavy"])


class TestAddAndRemove:
    def test_add_keeps_comments_and_order_and_says_what_comes_next(self, shell: Any) -> None:
        (shell.inventory / "hosts.yml").write_text(COMMENTED)
        ended = shell(
            *("workers", "add", "--id", "yto", "--host", "203.0.113.30", "--user", "ubuntu", "--port", "2222"),
            *("--slots", "8", "--priority", "50", "--tag", "heavy", "--tag", "new", "--identity-file", "/etc/hostname"),
        )
        assert ended.status == 0
        assert "next: rch fleet apply --limit yto" in ended.err
        text = (shell.inventory / "hosts.yml").read_text()
        assert "# our fleet\n" in text
        assert (
            "        # the fast one\n        css: {ansible_host: 203.0.113.20, rch_slots: 32}   # in the cellar\n"
            in text
        )
        assert (
            "        yto: {ansible_host: 203.0.113.30, ansible_user: ubuntu, ansible_port: 2222, "
            "ansible_ssh_private_key_file: /etc/hostname, rch_slots: 8, rch_priority: 50}\n"
        ) in text
        found = {one["name"]: one["declared"] for one in shell("inventory", "show", "--json").json["workers"]}
        assert (found["yto"]["port"], found["yto"]["slots"], found["yto"]["tags"]) == (2222, 8, ["heavy", "new"])

    def test_remove_takes_it_out_of_every_group_and_leaves_the_rest(self, shell: Any) -> None:
        (shell.inventory / "hosts.yml").write_text(COMMENTED)
        shell("workers", "add", "--id", "yto", "--host", "203.0.113.30", "--tag", "heavy")
        ended = shell("workers", "remove", "yto")
        assert ended.status == 0
        assert ended.out.rstrip().endswith("hosts.yml; what rch has put there stays (with --purge it goes first)")
        text = (shell.inventory / "hosts.yml").read_text()
        assert "yto" not in text
        assert "css: {ansible_host: 203.0.113.20, rch_slots: 32}   # in the cellar" in text

    def test_add_refuses_a_key_that_is_not_there(self, shell: Any) -> None:
        ended = shell("workers", "add", "--id", "css", "--host", "x", "--identity-file", "~/no-such-key")
        assert ended.status == 2
        assert ended.err.startswith(
            f"rch: error[UsageError] --identity-file {shell.home}/no-such-key is no file; next: ls"
        )
        assert "css" not in (shell.inventory / "hosts.yml").read_text()

    def test_remove_of_several_does_nothing_where_one_is_not_there(self, shell: Any) -> None:
        (shell.inventory / "hosts.yml").write_text(COMMENTED)
        ended = shell("workers", "remove", "css", "nobody")
        assert (ended.status, ended.out) == (2, "")
        assert ended.err.startswith("rch: error[UsageError] nobody is not in ")
        assert (shell.inventory / "hosts.yml").read_text() == COMMENTED

    @pytest.mark.parametrize("group", ["workers", "inventory", "fleet", "config", "daemon"])
    def test_a_group_alone_shows_its_commands_with_exit_2(self, shell: Any, group: str) -> None:
        ended = shell(group)
        assert (ended.status, ended.out) == (2, "")
        lines = ended.err.splitlines()
        assert lines[0].startswith(f"Usage: rch {group} ")
        assert "Commands:" in lines

    @pytest.mark.parametrize(
        ("file", "said"), [("/no/such", "/no/such: cannot be read: No such file or directory; next: ls -l /no/such")]
    )
    def test_import_of_what_cannot_be_read_is_one_line(self, shell: Any, file: str, said: str) -> None:
        ended = shell("workers", "import", file)
        assert (ended.status, ended.err) == (2, f"rch: error[ConfigError] {said}\n")

    def test_both_leave_a_file_untouched_that_would_become_wrong(self, shell: Any) -> None:
        file = shell.inventory / "hosts.yml"
        for text, words in (
            (COMMENTED, ["add", "--id", "css", "--host", "x"]),
            (COMMENTED, ["remove", "nope"]),
            (COMMENTED, ["add", "--id", "b b", "--host", "x"]),
            (COMMENTED, ["add", "--id", "x", "--host", "{{ evil }}"]),
            ("all: [", ["add", "--id", "x", "--host", "x"]),
            ("all: 3\n", ["add", "--id", "x", "--host", "x"]),
            (COMMENTED.replace("rch_slots: 32", "rch_slots: many"), ["add", "--id", "x", "--host", "x"]),
        ):
            file.write_text(text)
            ended = shell("workers", *words)
            assert ended.status == 2, words
            assert ended.err.count("\n") == 1
            assert file.read_text() == text

    def test_add_makes_the_users_inventory_where_there_is_none(self, shell: Any, tmp_path: Path) -> None:
        del shell.env["RCH_INVENTORY"]
        shell.env["HOME"] = str(tmp_path)
        import rch.fleet.inventory as module
        from rch.cli.inventory_file import inventory_file

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "__file__", str(tmp_path / "a/b/c.py"))  # as when installed, without a checkout
            assert inventory_file(shell.env) == f"{tmp_path}/.config/rch/inventory/hosts.yml"
            assert shell("workers", "add", "--id", "css", "--host", "x").status == 0
        assert "css: {ansible_host: x}" in (tmp_path / ".config/rch/inventory/hosts.yml").read_text()

    def test_add_tells_a_running_rchd_and_probes(self, shell: Any, rchd: Any) -> None:
        rchd.probes["yto"] = probe(
            ok=False, control={"ok": False, "error": "yto: no route", "hint": "", "class": "Unreachable"}
        )
        ended = shell("workers", "add", "--id", "yto", "--host", "203.0.113.30")
        assert ended.status == 0
        assert [path for method, path, _ in rchd.asked if method == "POST"] == ["/v1/refresh", "/v1/workers/yto/probe"]
        assert "yto is not ready yet: no route" in ended.err


class TestProbe:
    def test_shows_the_table(self, shell: Any, rchd: Any, make_worker: Any) -> None:
        rchd.workers = [make_worker()]
        rchd.probes["css"] = probe()
        ended = shell("workers", "probe", "css")
        assert ended.status == 0
        rows = dict(line.strip().split(maxsplit=1) for line in ended.out.splitlines()[1:] if "disk free" not in line)
        assert ended.out.splitlines()[0] == "css: ok"
        assert rows["control"].startswith("ok, 0.25 s")
        assert rows["bulk"].startswith("ok, 0.40 s")
        assert rows["system"] == "Linux css 6.1.0 x86_64 (Debian GNU/Linux 12 (bookworm))"
        assert (rows["cores"], rows["memory"]) == ("32", "64.0 GB")
        assert (rows["rustc"], rows["cargo"], rows["clang"]) == ("rustc 1.95.0", "not installed", "not installed")
        assert (rows["gcc"], rows["zstd"], rows["rsync"]) == ("gcc 12.2.0", "Zstandard CLI v1.5.4, by X", "rsync 3.2.7")
        assert (rows["clock"], rows["sandbox"], rows["rch-wkr"]) == ("+3.2 ms", "ok", "0.1.0, protocol 1")
        assert "  disk free  500.0 GB" in ended.out

    def test_d_14_finds_cargo_in_its_toolchain(self, shell: Any, rchd: Any) -> None:
        facts = probe()["facts"]
        rust = [{"identity": "rustc 1.95.0 (x)", "shown": "rustc 1.95.0", "components": ["cargo", "rustc"]}]
        answers = (rust, [{**rust[0], "components": []}], [], "x", [3])
        for rows, said in zip(answers, ("with rustc 1.95.0", *["not installed"] * 4), strict=True):
            rchd.workers = [{"name": "css"}]
            rchd.probes = {"css": probe(facts={**facts, "toolchains": {"rust": rows}})}
            lines = [line.split(maxsplit=1) for line in shell("workers", "probe", "css").out.splitlines()]
            assert ["cargo", said] in lines

    def test_ds_11_names_what_only_one_plane_can_do_with_exit_4(self, shell: Any, rchd: Any) -> None:
        rchd.probes["css"] = probe(ok=False, bulk={"ok": False, "error": "css: Permission denied", "hint": "ssh-add"})
        ended = shell("workers", "probe", "css")
        assert ended.status == 4
        assert "only the control plane gets in, the bulk plane does not: css: Permission denied" in ended.out
        assert "next: ssh-add" in ended.out

    def test_of_one_that_is_unreachable_is_exit_4_and_the_others_are_shown(
        self, shell: Any, rchd: Any, make_worker: Any
    ) -> None:
        rchd.workers = [make_worker(), make_worker("yto")]
        dead = {"ok": False, "error": "yto: connect timed out after 5 s", "hint": "rch workers probe yto"}
        rchd.probes = {
            "css": probe(),
            "yto": {"control": dead, "bulk": {"ok": False, "error": "not tried: no control plane"}, "ok": False},
        }
        ended = shell("workers", "probe")
        assert ended.status == 4
        assert "css: ok" in ended.out
        assert "yto: not ok: yto: connect timed out after 5 s\n" in ended.out
        assert "next:" not in ended.out, "to probe is what was just done"
        assert "only the" not in ended.out
        assert [one["ok"] for one in shell("workers", "probe", "--all", "--json").json] == [True, False]

    def test_needs_rchd(self, shell: Any) -> None:
        assert shell("workers", "probe", "css").status == 4


class TestSwitches:
    @pytest.mark.parametrize(("verb", "state"), [("drain", "draining"), ("disable", "disabled"), ("enable", "healthy")])
    def test_change_the_state(self, shell: Any, rchd: Any, make_worker: Any, verb: str, state: str) -> None:
        rchd.workers = [make_worker(), make_worker("yto")]
        ended = shell("workers", verb, "css")
        assert (ended.status, ended.out) == (0, f"css: {state}\n")
        assert [one["state"] for one in shell("workers", verb, "--all", "--json").json] == [state, state]

    def test_refuse_an_unknown_worker_and_an_unclear_choice(self, shell: Any, rchd: Any) -> None:
        assert shell("workers", "drain", "nope").status == 2
        assert shell("workers", "drain").status == 2
        assert shell("workers", "drain", "css", "--all").status == 2

    def test_drain_waits_for_the_jobs_and_no_longer_than_asked(
        self, shell: Any, rchd: Any, make_worker: Any, make_job: Any
    ) -> None:
        rchd.workers = [make_worker(active_jobs=[make_job(state="running")])]
        ended = shell("workers", "drain", "css", "--wait", "0")
        assert ended.status == 1
        assert "still busy" in ended.err
        rchd.workers[0]["active_jobs"] = []
        assert shell("workers", "drain", "css", "--wait", "30").status == 0


class TestInventoryShow:
    def test_names_file_and_line_of_a_mistake(self, shell: Any) -> None:
        (shell.inventory / "hosts.yml").write_text(COMMENTED.replace("rch_slots: 32", "rch_slots: eight"))
        ended = shell("inventory", "show")
        assert ended.status == 2
        assert "hosts.yml:7" in ended.err
        assert "eight" in ended.err

    def test_without_an_inventory_is_exit_2(self, shell: Any) -> None:
        assert shell("inventory", "show", RCH_INVENTORY="/does/not/exist").status == 2
