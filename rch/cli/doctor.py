"""``rch doctor``: everything that is known to go wrong, looked at; every finding ends in a command to try."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from rch.cli.api import Api
from rch.cli.check import FAIL, OK, WARN, Check
from rch.cli.command import RchCommand, output
from rch.cli.setting import here
from rch.cli.terminal import Output, colour, printable
from rch.config.places import places
from rch.errors import ConfigError, RchError

if TYPE_CHECKING:
    from rch.fleet.model import Worker

PROBE_S = 60.0
MARKS = {OK: "ok  ", WARN: "warn", FAIL: "FAIL"}


@click.command(cls=RchCommand)
@click.option(
    "--fix",
    is_flag=True,
    help="Mend what is safe to mend: modes, a stale registry, rchd not running, unportable marks.",
)
@click.option("--no-workers", is_flag=True, help="Look at this machine only; no connection is made.")
@click.argument("directory", required=False, type=click.Path(exists=True, file_okay=False))
def doctor(*, fix: bool, no_workers: bool, directory: str | None) -> int:
    """Check this machine, rchd, the inventory and every worker (for the project in DIRECTORY, default: here).

    Exit status 1 when a check fails; a warning is no failure. With --json an array of
    {"name", "status", "finding", "remedy", "fixable"}, with --fix also "fixed".
    """
    said = output()
    cwd = os.path.abspath(directory) if directory else here()
    checks = examine(cwd, with_workers=not no_workers)
    fixed: dict[str, str] = {}
    if fix:
        fixed = _mend(said, checks)
        if fixed:
            checks = examine(cwd, with_workers=not no_workers)
    if said.json:
        rows = [check.as_json() for check in checks]
        said.document([{**row, "fixed": fixed.get(row["name"])} for row in rows] if fix else rows)
    else:
        _print(said, checks)
    return 1 if any(check.status == FAIL for check in checks) else 0


def examine(cwd: str, *, with_workers: bool) -> list[Check]:
    """All checks, in the order in which a person would look."""
    from rch.cli import checks_here as local
    from rch.cli import checks_rchd as daemon
    from rch.cli.check import fail
    from rch.cli.checks_transfers import check_jobs
    from rch.cli.checks_workers import check_worker, probe_all, probe_here, tools_here

    env = dict(os.environ)
    try:
        where = places(env)
    except ConfigError as error:
        return [fail("environment", error.message, error.hint or "unset RCH_STATE_DIR")]
    checks, config = local.check_config(cwd, env)
    checks += local.check_state(where)
    checks += local.check_programs(env.get("PATH"))
    socket_path = config.socket_path if config else where.socket
    checks.append(local.check_socket_path(socket_path))
    found, registry = local.check_inventory(where.state, env)
    checks += found
    if registry is not None:
        checks += local.check_keys(registry)
    way = Api(socket_path, timeout_s=10.0)
    status = None
    if config is not None:
        found, status = daemon.check_rchd(config, way, env)
        checks += found
    pid = status.get("pid") if status else None
    rchd_pid = pid if isinstance(pid, int) else None
    if config is not None:
        checks += daemon.check_port(config.metrics.prometheus_port, rchd_pid)
    answers: dict[str, Mapping[str, Any]] = {}
    if with_workers and registry is not None and registry.workers:
        known = {str(worker.get("name")) for worker in (status or {}).get("workers", [])}
        alone = probe_here(where)

        def probe(worker: Worker) -> Mapping[str, Any]:
            if worker.name not in known:
                return alone(worker)
            answer: Mapping[str, Any] = way.post("workers", worker.name, "probe", timeout_s=PROBE_S)
            return answer

        answers = probe_all(registry, probe)
    if status is not None:
        if answers:
            # A probe brings back a worker that was away: what rchd thought before it is no finding.
            with contextlib.suppress(RchError):
                status = way.get("status")
        checks += daemon.check_capacity(status)
        checks += check_jobs(way, where.state, with_workers=with_workers)
    checks += local.check_agent(env, rchd_pid)
    checks += daemon.check_unportable(where.state, way)
    if registry is not None and answers:
        ours = tools_here(env, cwd)
        for worker in registry.workers.values():
            checks += check_worker(worker, answers[worker.name], ours)
    return checks


def _mend(said: Output, checks: list[Check]) -> dict[str, str]:
    """Run the fixes; what each one came to, by the check's name."""
    done = {}
    for check in checks:
        if check.fix is None or check.status == OK:
            continue
        try:
            check.fix()
        except (RchError, OSError) as error:
            done[check.name] = f"failed: {error}"
            said.say(f"{check.name}: could not be mended: {error}")
        else:
            done[check.name] = "done"
            said.say(f"{check.name}: done: {check.remedy}")
    return done


def _print(said: Output, checks: list[Check]) -> None:
    shown = checks if said.verbose else [check for check in checks if check.status != OK]
    for check in shown:
        mark = colour(MARKS[check.status], check.status)
        print(f"{mark}  {printable(check.name)}: {printable(check.finding)}")
        if check.remedy:
            print(f"      try: {printable(check.remedy)}")
    count = {status: sum(check.status == status for check in checks) for status in (OK, WARN, FAIL)}
    said.line(
        f"{count[OK]} ok, {count[WARN]} warnings, {count[FAIL]} failed" + ("" if said.verbose else " (-v shows all)")
    )
