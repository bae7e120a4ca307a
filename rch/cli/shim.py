"""``rch shim``: the directory of programs that stand for build tools in PATH."""

from __future__ import annotations

import os
import sys

import click

from rch.cli.command import RchGroup, output
from rch.cli.setting import load
from rch.shims import directory as shims
from rch.shims.program import own_setting
from rch.toolchains import TOOLCHAINS


@click.group(cls=RchGroup)
def shim() -> None:
    """Programs in front of PATH that send builds to rch and everything else to the real tool."""


@shim.command()
def install() -> None:
    """Write one shim for every build tool of this PATH."""
    said = output()
    place, tools = _place_and_tools()
    written, removed = shims.install(place, tools, own_setting(dict(os.environ), sys.executable))
    if said.json:
        said.document({"directory": place, "tools": sorted(tools), "written": written, "removed": removed})
        return
    said.line(f"{place}: {len(tools)} shims, {len(written)} written, {len(removed)} removed")
    if not shims.status(place, os.environ.get("PATH", ""), {}, own_setting(dict(os.environ), sys.executable)).on_path:
        said.say('not on PATH here; next: eval "$(rch shellenv)", or rch hook install for your agent')


@shim.command()
def uninstall() -> None:
    """Take the shims away."""
    said = output()
    place = load().places.state + "/shims"
    gone = shims.uninstall(place)
    if said.json:
        said.document({"directory": place, "removed": gone})
        return
    said.line(f"{place}: {len(gone)} shims removed")


@shim.command()
def status() -> None:
    """Show which shims there are, what they stand for and whether PATH has them."""
    said = output()
    place, tools = _place_and_tools()
    found = shims.status(place, os.environ.get("PATH", ""), tools, own_setting(dict(os.environ), sys.executable))
    if said.json:
        said.document(
            {
                "directory": place,
                "installed": found.installed,
                "on_path": found.on_path,
                "shims": dict(found.shims),
                "missing": list(found.missing),
                "stale": list(found.stale),
            }
        )
        return
    said.table(
        ("shim", "real program"),
        [(name, real or "(gone)") for name, real in found.shims.items()],
        empty=f"{place}: no shims; next: rch shim install",
    )
    if found.shims and not found.on_path:
        said.say('not on PATH here; next: eval "$(rch shellenv)"')
    if found.shims and (found.missing or found.stale):
        said.say(f"{len(found.missing)} tools without a shim, {len(found.stale)} stale; next: rch shim install")


def _place_and_tools() -> tuple[str, dict[str, str]]:
    return load().places.state + "/shims", tools_here()


def tools_here() -> dict[str, str]:
    """Program -> toolchain of what gets a shim here: on in the configuration, and on PATH."""
    config = load()
    chosen = config.interception.toolchains.model_dump()
    on = [tool.name for tool in TOOLCHAINS if chosen.get(tool.name, tool.on_by_default)]
    return shims.wanted(os.environ.get("PATH", ""), on)
