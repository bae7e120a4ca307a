"""``rch workers import``: the seed's workers.toml into the inventory."""

from __future__ import annotations

import os
import shlex

import click

from rch.cli.command import RchCommand, output
from rch.cli.inventory_file import inventory_file, merge_hosts, replace_inventory
from rch.cli.playing import tell_rchd
from rch.cli.setting import api, load
from rch.config.edit import set_value, value_from_text
from rch.config.layers import Layer
from rch.errors import ConfigError
from rch.fleet.workers_toml import parse

HEARTBEAT = "daemon.heartbeat_interval_sec"


@click.command("import", cls=RchCommand)
@click.argument("file", type=click.Path())
def import_(*, file: str) -> None:
    """Write the workers of FILE, a workers.toml, into the inventory; a second import changes nothing.

    With --json {"inventory", "added", "changed", "unknown"}.
    """
    said = output()
    try:
        with open(file, encoding="utf-8") as stream:
            text = stream.read()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=file, hint=f"ls -l {shlex.quote(file)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8, so no workers.toml", file=file, hint="rch workers import --help") from error
    found = parse(text, file)
    path = inventory_file(os.environ)
    config = load()
    hosts = [(one.name, one.variables, one.tags) for one in found.workers]
    merged = merge_hosts(path, hosts, found.group)
    if merged is not None:
        replace_inventory(path, merged.text, config.places.state, os.environ)
        tell_rchd(api())
    changed = list(merged.changed) if merged else []
    if found.heartbeat_s is not None and config.value(HEARTBEAT) != found.heartbeat_s:
        place, value = value_from_text(HEARTBEAT, str(found.heartbeat_s))
        set_value(config.places.user_file, Layer.USER, place, value)
        changed.append(HEARTBEAT)
    added = list(merged.added) if merged else []
    if said.json:
        said.document({"inventory": path, "added": added, "changed": changed, "unknown": list(found.unknown)})
        return
    for key in found.unknown:
        said.say(f"{file}: {key} means nothing to rch and was left out")
    for name in added:
        said.line(f"{name} added to {path}")
    for what in changed:
        said.line(f"{what} set")
    if not added and not changed:
        said.line(f"nothing new: {len(found.workers)} workers are in {path} already")
    elif added:
        said.say("next: rch fleet apply")
