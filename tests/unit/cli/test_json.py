"""What ``--json`` prints is what docs/cli.md says: nobody's program breaks by an update."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from rch.cli.document import LISTINGS, commands, page

WORDS = {
    "rch logs": ["logs", "j-1"],
    "rch queue": ["queue"],
    "rch explain": ["explain", "make"],
    "rch doctor": ["doctor", "--no-workers"],
}


@pytest.fixture
def world(shell: Any, rchd: Any, make_job: Any, make_worker: Any) -> Any:
    """An rchd with something of everything, and a host to discover that refuses at once."""
    (shell.home / ".ssh").mkdir()
    (shell.home / ".ssh/config").write_text("Host 127.0.0.1\n")
    rchd.workers = [make_worker()]
    rchd.jobs = [make_job(state="queued")]
    rchd.probes = {"css": {"ok": True, "control": {"ok": True}, "bulk": {"ok": True}}}
    rchd.logs = {"j-1": [struct.pack(">BxxxQI", 1, 1, 3) + b"out"]}
    return shell


class TestALanguageForPrograms:
    @pytest.mark.parametrize("command", LISTINGS)
    def test_has_the_shape_and_the_keys_of_the_page(self, world: Any, command: str) -> None:
        shape, keys = LISTINGS[command]
        ended = world("--json", *WORDS.get(command, command.split()[1:]))
        documents = (
            [json.loads(line) for line in ended.out.splitlines()] if shape == "object a line" else json.loads(ended.out)
        )
        found = [documents] if shape == "object" else documents
        assert found, "an empty listing shows nothing"
        for document in found:
            assert set(keys.split()) <= set(document)

    def test_is_spoken_by_every_listing_and_the_page_has_them_all(self) -> None:
        names = {name for name, _ in commands()}
        assert set(LISTINGS) <= names
        listing = {n for n in names if n.rsplit(" ", 1)[-1] in ("list", "status", "show", "jobs", "queue", "doctor")}
        assert listing <= set(LISTINGS), "a new listing is documented in rch/cli/document.py"
        for name in LISTINGS:
            assert f"| `{name}` |" in page()

    @pytest.mark.parametrize(
        "words",
        [
            ["config", "set", "transfer.git", "none", "--user"],
            ["config", "reset", "transfer.git", "--user"],
            ["config", "reset", "--user", "--yes"],
            ["config", "init", "--user"],
            ["config", "trust"],
            ["config", "trust", "--revoke"],
            ["daemon", "start"],
            ["workers", "drain", "css"],
            ["cancel", "j-1"],
            ["fetch", "j-1"],
        ],
    )
    def test_is_also_what_a_change_answers(self, world: Any, words: list[str]) -> None:
        if words[:2] == ["config", "trust"]:
            (world.cwd / ".rch").mkdir()
            (world.cwd / ".rch/config.toml").write_text("")
        ended = world(*words, "--json")
        assert ended.status == 0, ended.err
        assert json.loads(ended.out)
