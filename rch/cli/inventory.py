"""``rch inventory show``: what rchd uses of the inventory."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import click

from rch.cli.command import RchGroup, output
from rch.cli.setting import load


@click.group(cls=RchGroup)
def inventory() -> None:
    """Look at the Ansible inventory as rch sees it."""


@inventory.command()
def show() -> None:
    """Compile the inventory if it has changed and show every worker as rchd uses it.

    With --json {"digest", "sources", "workers"}; a worker is {"name", "declared", "origins", "observed"}, where
    "origins" has for each declared value the file and line that gave it, "groups", or "default". With -v as text.
    """
    from rch.fleet.inventory import find_inventory
    from rch.fleet.origins import origins
    from rch.fleet.registry import load_registry

    state = load().places.state
    os.makedirs(state, mode=0o700, exist_ok=True)
    source = find_inventory()
    registry = load_registry(state, source)
    said = output()
    places = (
        origins(source, {one.name: one.declared for one in registry.workers.values()})
        if said.json or said.verbose
        else {}
    )
    workers: list[dict[str, Any]] = [
        {
            "name": worker.name,
            "declared": dataclasses.asdict(worker.declared),
            "origins": places.get(worker.name, {}),
            "observed": {"at": worker.observed.at, "facts": dict(worker.observed.facts)},
        }
        for worker in registry.workers.values()
    ]
    if said.json:
        said.document({"digest": registry.digest, "sources": list(registry.sources), "workers": workers})
        return
    for source in registry.sources:
        said.say(f"source: {source}")
    if said.verbose:
        for found in workers:
            for field, value in found["declared"].items():
                if field in found["origins"]:
                    said.line(f"{found['name']}.{field} = {value!r}  # {found['origins'][field]}")
        return
    rows = [
        (
            found["name"],
            found["declared"]["host"],
            found["declared"]["port"] or "-",
            found["declared"]["user"],
            found["declared"]["executor"],
            found["declared"]["slots"] or "-",
            found["declared"]["priority"],
            "yes" if found["declared"]["enabled"] else "no",
            ",".join(found["declared"]["tags"]) or "-",
            found["observed"]["at"] or "never",
        )
        for found in workers
    ]
    headers = ("NAME", "HOST", "PORT", "USER", "EXECUTOR", "SLOTS", "PRIORITY", "ENABLED", "TAGS", "FACTS")
    said.table(headers, rows, empty="no workers in the inventory; next: rch workers add, or rch init")
