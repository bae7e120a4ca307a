"""``rch hook``: the hooks of coding agents: answered, installed, taken away, looked at, tried."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import replace

import click
from typing_extensions import override

from rch.agents import install as harnesses
from rch.agents import programs
from rch.agents.dialect import DIALECTS, HARNESSES
from rch.agents.programs import Setting
from rch.cli.command import RchCommand, RchGroup, output
from rch.cli.setting import load
from rch.errors import RchError, UsageError


class _Group(RchGroup):
    """``rch hook AGENT`` answers a hook; the names of agents are no listed subcommands."""

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _answering(cmd_name) if cmd_name in HARNESSES else super().get_command(ctx, cmd_name)


def _answering(harness: str) -> click.Command:
    @click.command(
        harness, cls=RchCommand, help=f"Answer a hook of {harness}: JSON on stdin, JSON or nothing on stdout."
    )
    def answer() -> int:
        from rch.agents.hook import main

        return main([harness])

    return answer


@click.group(cls=_Group, invoke_without_command=True)
@click.pass_context
def hook(context: click.Context) -> int:
    """Hooks of coding agents.

    rch hook AGENT reads the agent's question on stdin and answers in its dialect; without AGENT the question tells
    whose it is. Agents: claude codex gemini cursor copilot opencode; cline continue qwen windsurf aider get shims.
    """
    if context.invoked_subcommand is None:
        from rch.agents.hook import main

        return main([])
    return 0


_AGENTS = click.argument("agents", nargs=-1, metavar="[AGENT]...")


@hook.command()
@click.option("--no-shims", is_flag=True, help="Do not install shims; only commands the hook rewrites are sent out.")
@click.option("--no-compile", is_flag=True, help="Use the sh hook even where a C compiler is.")
@click.option("--http", is_flag=True, help="Claude asks rchd over HTTP (interception.http_hook_port), no process.")
@_AGENTS
def install(*, agents: tuple[str, ...], no_shims: bool, no_compile: bool, http: bool) -> None:
    """Put rch into the settings of each AGENT (default: those found on this machine)."""
    said = output()
    setting = this_setting()
    chosen = _chosen(agents) or agents_here(setting)
    if not chosen:
        raise UsageError("no coding agent was found here", what="AGENT", hint=f"name one of {', '.join(HARNESSES)}")
    if not no_shims:
        install_shims(setting)
    kind = programs.install(setting, native=False if no_compile else None)
    chosen_setting = replace(setting, http_port=_http_port() if http else 0)
    results = {name: harnesses.install(name, chosen_setting, os.environ) for name in chosen}
    if said.json:
        said.document({"hook": kind, "shims": setting.shims if not no_shims else None, "agents": results})
        return
    for name, files in results.items():
        for path, what in files.items():
            said.line(f"{name}: {path} {what}")
        for note in harnesses.status(name, setting, os.environ).notes:
            said.say(f"{name}: {note}")


@hook.command()
@_AGENTS
def uninstall(*, agents: tuple[str, ...]) -> None:
    """Take rch out of the settings of each AGENT (default: all). The shims stay: rch shim uninstall."""
    said = output()
    setting = this_setting()
    chosen = _chosen(agents) or list(HARNESSES)
    results = {name: harnesses.uninstall(name, setting, os.environ) for name in chosen}
    left = [n for n in HARNESSES if harnesses.status(n, setting, os.environ).state in ("installed", "stale")]
    if not left:
        programs.uninstall(setting)
    if said.json:
        said.document({"agents": results})
        return
    for name, files in results.items():
        for path, what in files.items():
            if what != "unchanged" or agents:
                said.line(f"{name}: {path} {what}")


@hook.command()
@_AGENTS
def status(*, agents: tuple[str, ...]) -> None:
    """Show where rch is installed and what keeps it from working."""
    said = output()
    setting = this_setting()
    found = [harnesses.status(name, setting, os.environ) for name in _chosen(agents) or HARNESSES]
    kind = programs.kind(setting)
    if said.json:
        rows = [{"agent": f.harness, "state": f.state, "files": list(f.files), "notes": list(f.notes)} for f in found]
        said.document({"hook": kind, "agents": rows})
        return
    said.table(
        ("agent", "state", "notes"),
        [(f.harness, f.state, "; ".join(f.notes) if f.state != "missing" else "") for f in found],
        empty="no agents",
    )
    said.say(f"hook program: {kind or 'none; next: rch hook install'}")


@hook.command()
@_AGENTS
def test(*, agents: tuple[str, ...]) -> int:
    """Run the installed hook of each AGENT with samples and compare its answers. Needs rchd."""
    from rch.agents.trial import clean_environment, trials

    said = output()
    setting = this_setting()
    installed = [n for n in DIALECTS if harnesses.status(n, setting, os.environ).state == "installed"]
    chosen = [name for name in _chosen(agents) if name in DIALECTS] if agents else installed
    if not chosen:
        raise UsageError("no agent with a hook is installed", what="AGENT", hint="rch hook install")
    with tempfile.TemporaryDirectory(prefix="rch-hook-") as place:
        found = [
            trial
            for name in chosen
            for trial in trials(
                name, harnesses.as_installed(name, setting, os.environ), clean_environment(os.environ), place
            )
        ]
    if said.json:
        said.document([{"agent": t.harness, "sample": t.sample, "ok": t.ok, "said": t.said} for t in found])
    else:
        rows = [(t.harness, t.sample, "ok" if t.ok else "WRONG", t.said) for t in found]
        said.table(("agent", "sample", "", "answer"), rows, empty="nothing to try")
    if all(t.ok for t in found):
        return 0
    said.say("next: rch daemon status, rch hook status; the user's own rules for make may hold the sample too")
    return 1


def _http_port() -> int:
    port = load().interception.http_hook_port
    if not port:
        hint = "rch config set --user interception.http_hook_port 8431, then rch daemon restart"
        raise UsageError("rchd listens on no port for Claude's http hook", what="--http", hint=hint)
    return port


def this_setting() -> Setting:
    from rch.shims.program import usual_name

    return Setting(load().places.state, usual_name(sys.executable), bool(os.environ.get("RCH_STATE_DIR")))


def _chosen(agents: tuple[str, ...]) -> list[str]:
    for name in agents:
        if name not in HARNESSES:
            raise UsageError(f"no agent {name!r} is known", what=name, hint=f"one of {', '.join(HARNESSES)}")
    return list(agents)


def agents_here(setting: Setting) -> list[str]:
    """The agents that this user has."""
    return [name for name in HARNESSES if _is_here(name, setting)]


def _is_here(name: str, setting: Setting) -> bool:
    """Has this user ever run *name*? Its directory of settings is there, or its program is."""
    import shutil

    try:
        places = harnesses.places_of(name, setting, os.environ)
    except RchError:
        return False
    base = next((os.path.dirname(place.path) for place in places), "")
    return bool(base and os.path.isdir(base)) or bool(places and shutil.which(name))


def install_shims(setting: Setting) -> None:
    from rch.cli.shim import tools_here
    from rch.shims import directory
    from rch.shims.program import own_setting

    directory.install(setting.shims, tools_here(), own_setting(dict(os.environ), sys.executable))
