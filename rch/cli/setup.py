"""What ``rch init`` and ``rch install`` are made of: one step each, asked about where that is a person's to decide."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from rch.cli.api import Api, NotRunning
from rch.cli.asking import confirm
from rch.cli.playing import play, tell_rchd
from rch.cli.setting import load
from rch.cli.terminal import Output
from rch.errors import Fault, RchError, Unreachable, UsageError

if TYPE_CHECKING:
    from rch.fleet.discover import Candidate, Found
    from rch.fleet.model import Worker
    from rch.fleet.run import Outcome

TITLES = {
    "claude": "Claude Code",
    "codex": "Codex",
    "gemini": "Gemini",
    "cursor": "Cursor",
    "copilot": "Copilot",
    "opencode": "OpenCode",
    "cline": "Cline",
    "continue": "Continue",
    "qwen": "Qwen Code",
    "windsurf": "Windsurf",
    "aider": "Aider",
}
"""Agents as their makers write them."""


START_S = 60.0
"""Seconds that rchd may take to answer for the first time."""


@dataclass
class Setup:
    """One run. yes: every question is answered yes. root: playbooks of another checkout. done: what came of it."""

    said: Output
    yes: bool = False
    ssh_config: str = ""
    embedded: bool = False
    ask_password: bool = False
    root: str = ""
    done: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError("no terminal to ask questions on", what="--yes", hint="the same with --yes")

    def asks(self, question: str, *, default: bool = True) -> bool:
        """The answer to *question*; with --yes it is yes."""
        return self.yes or confirm(question, default=default)

    # --- machines ---

    def look_at(self, candidates: Sequence[Candidate]) -> list[Found]:
        """Probe all of them, and say how each is in one line."""
        from rch.cli.workers_discover import short
        from rch.fleet.discover import probe_all

        found = probe_all(candidates, ssh_config=self.ssh_config)
        self.said.say(f"Probing … {' '.join(short(one) for one in found)}")
        return found

    def named_hosts(self, words: Sequence[str], identity_file: str) -> list[Found]:
        """The machines that were named; raises Unreachable or UsageError when one of them cannot be a worker."""
        from rch.fleet.discover import named

        found = self.look_at([named(word, key=identity_file, ssh_config=self.ssh_config) for word in words])
        for one in found:
            if one.why and one.system:
                raise UsageError(f"{one.candidate.name}: {one.why}", what=one.candidate.name)
            if one.why:
                command = one.candidate.command
                text = f"{one.candidate.name}: {one.why.removesuffix(f': {command}')}"
                raise Unreachable(text, host=one.candidate.name, hint=command)
        return found

    def discovered_hosts(self, *, wanted: bool) -> list[Found]:
        """The machines of ssh_config and aliases that the person chose; nothing is contacted before the answer."""
        from rch.cli.workers_discover import candidates_here, choose, found_line

        if not (wanted or load().value("workers.discovery_enabled")):
            return []
        candidates = candidates_here(self.ssh_config)
        if not candidates:
            self.said.say("No hosts in ~/.ssh/config and no ssh aliases: name them, as in rch init css=me@203.0.113.20")
            return []
        self.said.say(found_line(candidates))
        if self.yes and not wanted:
            self.said.say("They are not touched unasked: rch init --yes --discover, or name those you mean")
            return []
        if not self.asks(f"Log in to each of them once and look ({', '.join(one.name for one in candidates)})?"):
            return []
        usable = [one for one in self.look_at(candidates) if not one.why]
        return usable if self.yes else choose(usable)

    def write_inventory(self, found: Sequence[Found]) -> None:
        """Put *found* into the inventory."""
        from rch.cli.inventory_file import inventory_file
        from rch.cli.workers_discover import add_found

        path = inventory_file(os.environ)
        if not self.asks(f"Write {path}?"):
            self.said.say("nothing was written")
            raise click.Abort
        self.done["inventory"] = add_found(self.said, found, self.ssh_config, embedded=self.embedded)

    def workers(self) -> list[Worker]:
        """The workers of the inventory; none where there is no inventory."""
        from rch.errors import ConfigError
        from rch.fleet.inventory import find_inventory, names_hosts
        from rch.fleet.registry import load_registry

        try:
            source = find_inventory()
        except ConfigError:
            return []  # the first worker makes it
        if not names_hosts(source):
            return []
        state = load().places.state
        os.makedirs(state, mode=0o700, exist_ok=True)
        return list(load_registry(state, source).workers.values())

    def provision(self, workers: Sequence[Worker], playbook: str = "site") -> Outcome:
        """Run *playbook* over the inventory; the outcome is not judged."""
        if not self.asks(f"Provision {', '.join(one.name for one in workers)} now (ansible-playbook {playbook}.yml)?"):
            self.said.say("not provisioned; next: rch fleet plan, rch fleet apply")
            raise click.Abort
        outcome = play(playbook, ask_password=self.ask_password, root=self.root)
        self.done["provisioning"] = outcome.as_json()
        return outcome

    def show_fleet(self) -> None:
        """Two lines: which compilers are where, and how fast the machines are."""
        from rch.fleet.toolchains import shown

        workers = self.workers()
        for tool, title in (("rust", "Rust"), ("c", "C")):
            versions: dict[str, list[str]] = {}
            for one in workers:
                text = shown(one.observed.facts).get(tool)
                if text:
                    versions.setdefault(text, []).append(one.name)
            if versions:
                told = " · ".join(f"{text} on {', '.join(names)}" for text, names in versions.items())
                self.said.say(f"{title}: {told}")
        scores = [(one.name, one.observed.facts.get("speed_score")) for one in workers]
        rated = [f"{name} {score:.0f}" for name, score in scores if isinstance(score, (int, float))]
        if rated:
            self.said.say(f"Speed: {' · '.join(rated)}")

    # --- this machine ---

    def write_config(self) -> None:
        """The user's configuration, with every key commented out, where there is none."""
        from rch.config.document import starting_file

        path = load().places.user_file
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            with open(path, "x", encoding="utf-8") as stream:
                stream.write(starting_file("U"))
        except FileExistsError:
            return
        self.done["config"] = path
        self.said.say(f"{path} written; every key is a comment")

    def start_rchd(self) -> None:
        """Start rchd, or restart one of another version."""
        from rch import __version__
        from rch.cli.daemon import stop_rchd
        from rch.cli.lifecycle import start_rchd

        config = load()
        way = Api(config.socket_path, timeout_s=10.0)
        try:
            health = way.get("health")
        except NotRunning:
            health = None
        if health is not None and str(health.get("version")) == __version__:
            tell_rchd(way)
            self.done["rchd"] = "running"
            return
        if health is not None:
            stop_rchd(0.0)
        try:
            started = start_rchd(config, way)
        except Fault:
            # A command may not wait longer than some seconds; whoever sets a busy machine up may.
            started = _awaited(way)
        self.done["rchd"] = "started"
        self.said.say(f"rchd started (pid {started.get('pid')})")

    def install_hooks(self, agents: Sequence[str]) -> None:
        """Hooks and shims for each agent that is here (or named), after asking."""
        from rch.agents import install as harnesses
        from rch.agents import programs
        from rch.agents.dialect import DIALECTS
        from rch.cli.hook import agents_here, install_shims, this_setting

        where = this_setting()
        chosen = []
        for name in agents or agents_here(where):
            way = "hook and shims" if name in DIALECTS else "shims"
            if agents or self.asks(f"Install for {TITLES[name]} ({way})?"):
                chosen.append(name)
        if not chosen and not self.asks("No agent chosen. Install the shims for your own shell?", default=False):
            self.done["agents"] = []
            return
        install_shims(where)
        programs.install(where)
        for name in chosen:
            harnesses.install(name, where, os.environ)
        self.done["agents"] = chosen
        names = ", ".join(TITLES[name] for name in chosen)
        self.said.say(f"Installed for {names or 'your shell'}. Undo any time: rch hook uninstall, rch shim uninstall")

    # --- proof ---

    def canary(self) -> bool:
        """One build on a worker whose toolchain is ours; False when it failed, or when no worker can be tried."""
        from rch.cli.canary import candidates, sing
        from rch.cli.checks_workers import tools_here

        config = load()
        workers = [one for one in self.workers() if one.declared.enabled]
        pairs = candidates(workers, tools_here(os.environ, config.places.home))
        if not pairs:
            self.said.say("Canary: not sung, no worker has this machine's Rust or C; next: rch doctor")
            self.done["canary"] = None
            return False
        worker, project = pairs[0]
        song = sing(worker.name, project, config.places.state, os.environ)
        self.done["canary"] = {
            "worker": song.worker,
            "ok": song.ok,
            "seconds": round(song.seconds, 1),
            "said": song.shown,
        }
        self.said.say(song.line() if song.ok or "next: " in song.shown else f"{song.line()}; next: rch doctor")
        return song.ok


def _awaited(way: Api) -> dict[str, Any]:
    """The health of an rchd that is still starting; raises NotRunning or Unreachable when it does not come."""
    until = time.monotonic() + START_S
    while True:
        try:
            found: dict[str, Any] = way.get("health", timeout_s=5.0)
        except Unreachable:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
        else:
            return found


def problem_of(outcome: Outcome) -> RchError | None:
    """The error that *outcome* stands for, if a host failed."""
    try:
        outcome.check()
    except RchError as error:
        return error
    return None
