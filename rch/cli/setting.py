"""What every command starts from: the configuration here, and the way to rchd."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from rch.cli.api import Api
from rch.cli.command import output

if TYPE_CHECKING:
    from rch.config.merged import Config


def here() -> str:
    """The current directory as the caller sees it; ``/`` when it is gone."""
    try:
        cwd = os.getcwd()
    except FileNotFoundError:
        return "/"
    seen = os.environ.get("PWD", "")
    try:
        same = seen.startswith("/") and os.path.samefile(seen, cwd)
    except OSError:
        same = False
    return os.path.normpath(seen) if same else cwd


def load() -> Config:
    """The configuration of a command given here; raises ConfigError (exit 2)."""
    from rch.config.merged import load_config

    config = load_config(here(), os.environ)
    context = click.get_current_context(silent=True)
    if context is not None and config.general.verbose and not (said := output()).quiet:
        said.verbose = True
    return config


def api(*, timeout_s: float | None = None) -> Api:
    """The way to the rchd that the configuration and RCH_STATE_DIR mean."""
    config = load()
    return Api(config.socket_path, timeout_s=timeout_s or config.switches.request_timeout_s or 30.0)


def bare_id(job: str) -> str:
    """``css:j-1`` as ``j-1``: rchd knows on which worker a job is."""
    return job.rpartition(":")[2]
