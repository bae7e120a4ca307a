"""``rch daemon``: start, stop and look at rchd."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import click

from rch.cli.api import Api, NotRunning
from rch.cli.command import RchGroup, output
from rch.cli.lifecycle import lock_holder, start_rchd, wait_until_gone
from rch.cli.setting import api, load
from rch.cli.terminal import duration
from rch.errors import Fault

STOP_S = 10.0


@click.group(cls=RchGroup)
def daemon() -> None:
    """Start, stop and look at rchd, the resident daemon."""


@daemon.command()
def start() -> int:
    """Start rchd in the background; does nothing when it runs."""
    said = output()
    config = load()
    way = Api(config.socket_path, timeout_s=5.0)
    health = _health(way)
    if health is None:
        health = start_rchd(config, way)
        said.answer(f"rchd started (pid {health.get('pid')})", {"started": True, **health})
        return 0
    said.answer(f"rchd is already running (pid {health.get('pid')})", {"started": False, **health})
    return 0


@daemon.command()
@click.option(
    "--wait", "wait_s", default=0.0, type=click.FloatRange(0, 86_400), help="Seconds for short jobs to end first."
)
def stop(*, wait_s: float) -> int:
    """Stop rchd; running jobs go on on their workers and are picked up again at the next start."""
    stopped = stop_rchd(wait_s)
    output().answer("rchd stopped" if stopped else "rchd was not running", {"stopped": stopped})
    return 0


@daemon.command()
@click.option(
    "--wait", "wait_s", default=0.0, type=click.FloatRange(0, 86_400), help="Seconds for short jobs to end first."
)
def restart(*, wait_s: float) -> int:
    """Stop rchd if it runs, then start it."""
    config = load()
    stop_rchd(wait_s)
    health = start_rchd(config, Api(config.socket_path, timeout_s=5.0))
    output().answer(f"rchd started (pid {health.get('pid')})", {"started": True, **health})
    return 0


@daemon.command("status")
def status_() -> int:
    """Say whether rchd runs; exit status 0 when it does, 1 when it does not."""
    said = output()
    config = load()
    try:
        found = api().get("status")
    except NotRunning:
        holder = lock_holder(config.places.state)
        text = "rchd is not running"
        if holder:
            text = f"rchd (pid {holder}) holds the state directory but does not answer on {config.socket_path}"
        said.answer(text, {"running": False, "pid": holder, "socket": config.socket_path, "state": config.places.state})
        return 1
    document = {
        "running": True,
        "pid": found.get("pid"),
        "version": found.get("version"),
        "uptime_seconds": found.get("uptime_seconds"),
        "socket": config.socket_path,
        "state": config.places.state,
        "log": config.log_file,
    }
    text = f"rchd {document['version']} is running (pid {document['pid']}, up {duration(document['uptime_seconds'])})"
    said.answer(text, document)
    return 0


@daemon.command("logs")
@click.option(
    "-n", "--lines", "count", default=50, show_default=True, type=click.IntRange(1, 100_000), help="Lines shown."
)
@click.option("-f", "--follow", is_flag=True, help="Go on as the log grows.")
def logs_(*, count: int, follow: bool) -> int:
    """Show the end of rchd's log; with --json the lines as they are."""
    said = output()
    path = load().log_file
    if not os.path.exists(path):
        said.say(f"{path} does not exist; rchd has not run here")
        return 1
    for line in _lines(path, count, follow=follow):
        if said.json:
            print(line, flush=True)
        else:
            said.line(log_text(line))
    return 0


def log_text(line: str) -> str:
    """One JSON line of the log for people: time, level, event, then what else it has."""
    try:
        found = json.loads(line)
    except ValueError:
        return line
    if not isinstance(found, dict):
        return line
    head = [str(found.pop(name, "")) for name in ("time", "level", "event")]
    rest = [f"{name}={json.dumps(value, ensure_ascii=False, default=str)}" for name, value in found.items()]
    return " ".join([*head, *rest]).replace("\n", " ")


def stop_rchd(wait_s: float) -> bool:
    config = load()
    way = Api(config.socket_path, timeout_s=10.0)
    holder = lock_holder(config.places.state)
    try:
        health = way.get("health")
        way.post("stop", body={"wait_s": wait_s})
    except NotRunning:
        if holder is None:
            return False
        raise Fault(
            f"rchd (pid {holder}) holds {config.places.state}/lock but does not listen",
            host="here",
            hint=f"kill {holder}",
        ) from None
    # Where systemd holds the socket, whoever asks there starts the next one: then only the lock tells.
    by_unit = health.get("socket_by") == "systemd"
    if by_unit:
        output().say("rchd.socket starts it again at the next command; next: systemctl --user stop rchd.socket")
    if not wait_until_gone(config.places.state, None if by_unit else way, wait_s + STOP_S):
        pid = lock_holder(config.places.state)
        raise Fault(
            f"rchd (pid {pid or 'unknown'}) has not ended after {wait_s + STOP_S:.0f} s",
            host="here",
            hint=f"kill -9 {pid}; nothing is lost by it" if pid else "rch daemon status",
        )
    return True


def _health(way: Api) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = way.get("health")
    except NotRunning:
        return None
    return found


def _lines(path: str, count: int, *, follow: bool) -> Iterator[str]:
    """The last *count* lines, then new ones; a rotated file is opened anew."""
    stream = open(path, "rb")  # noqa: SIM115 - replaced when the log is rotated
    try:
        end = stream.seek(0, os.SEEK_END)
        # 400 bytes a line is more than rchd's lines take; what does not fit is read in full.
        stream.seek(max(0, end - count * 4000))
        tail = stream.read().splitlines()[-count:]
        for line in tail:
            yield line.decode("utf-8", "replace")
        held = b""
        while follow:
            data = stream.read()
            if data:
                held += data
                *whole, held = held.split(b"\n")
                for line in whole:
                    yield line.decode("utf-8", "replace")
                continue
            time.sleep(0.3)
            try:
                rotated = os.stat(path).st_ino != os.fstat(stream.fileno()).st_ino
            except FileNotFoundError:
                rotated = False
            if rotated:
                stream.close()
                stream = open(path, "rb")  # noqa: SIM115 - as above
                held = b""
    finally:
        stream.close()
