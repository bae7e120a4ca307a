"""The environment switches: what each variable may hold, and which of them decide. Standard library only."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rch.client_options import ADDRESS_VARIABLES, FALSE_WORDS, MODES, TRUE_WORDS
from rch.errors import ConfigError, UsageError

LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class Secret:
    """A text that does not show when it is printed."""

    _text: str = field(repr=False)

    def reveal(self) -> str:
        return self._text


@dataclass(frozen=True)
class Variable:
    """One variable. ``who`` holds c (read by the client per command), d (once by rchd), j (set inside a job)."""

    name: str
    field: str
    who: str
    read: Callable[[str], Any]
    expects: str
    effect: str


@dataclass(frozen=True)
class Switches:
    """The variables, read and checked; None and empty mean "not set". Times in seconds."""

    enabled: bool | None = None
    bypass: bool = False
    local_only: bool | None = None
    require_remote: bool | None = None
    dry_run: bool = False
    worker: str | None = None
    workers: tuple[str, ...] = ()
    tag: str | None = None
    mode: str | None = None
    addr: str | None = None
    addr_from: str = ""
    compression: int | None = None
    no_cache: bool = False
    verbose: bool | None = None
    quiet: bool = False
    token: Secret | None = None
    request_timeout_s: float | None = None
    command_timeout_s: float | None = None
    mock_seed: int | None = None
    mock_failure_rate: float | None = None
    state_dir: str | None = None
    config: str | None = None
    inventory: str | None = None
    log_level: str | None = None
    cors_origin: str | None = None
    rate_limit: int | None = None
    workspace_dir: str | None = None
    max_file_mb: int | None = None
    on_worker: bool = False
    job: str | None = None
    exit_status: int | None = None
    notices: tuple[str, ...] = field(default=())
    """Lines that one person should see once (two address variables that differ)."""

    def local_reason(self) -> str:
        """The reason code of the first switch that keeps a command here, or "" (coverage A-7)."""
        if self.on_worker:
            return "on-worker"
        if self.bypass:
            return "bypass"
        if self.enabled is False:
            return "disabled"
        if self.local_only:
            return "local-only"
        return ""

    def check_conflicts(self, *named_places: str, require_remote: bool = False) -> None:
        """Raise UsageError when one switch keeps the command here and another forbids that (coverage A-8).

        named_places:   the options that name a place as they were given ("--worker css", "--on …").
        require_remote: ``--require-remote`` was given.
        """
        stays = (
            "RCH_BYPASS"
            if self.bypass
            else "RCH_ENABLED=0"
            if self.enabled is False
            else "RCH_LOCAL_ONLY"
            if self.local_only
            else ""
        )
        if not stays:
            return
        goes = (
            "RCH_REQUIRE_REMOTE"
            if self.require_remote
            else "RCH_MODE=remote"
            if self.mode == "remote"
            else "--require-remote"
            if require_remote
            else next(iter(named_places), "")
        )
        if goes:
            raise UsageError(f"{stays} keeps the command here, {goes} sends it away; nothing was run", what=stays)


def _switch(text: str) -> bool:
    word = text.lower()
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise ValueError(text)


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII) or not low <= int(text) <= high:
            raise ValueError(text)
        return int(text)

    return read


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text, re.ASCII) or not low <= float(text) <= high:
            raise ValueError(text)
        return float(text)

    return read


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return read


def _word(text: str) -> str:
    if any(character.isspace() or not character.isprintable() for character in text):
        raise ValueError(text)
    return text


def _names(text: str) -> tuple[str, ...]:
    names = tuple(_word(name.strip()) for name in text.split(","))
    if not all(names):
        raise ValueError(text)
    return names


def _path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError(text)
    return text


_WORDS = "1 true yes on, or 0 false no off"

VARIABLES: tuple[Variable, ...] = (
    Variable(
        "RCH_ENABLED",
        "enabled",
        "c",
        _switch,
        _WORDS,
        "0: nothing is intercepted; 1 overrides `enabled = false` of both files",
    ),
    Variable(
        "RCH_BYPASS",
        "bypass",
        "c",
        _switch,
        _WORDS,
        "1: the real tool at once; no configuration read, nothing contacted, nothing logged",
    ),
    Variable(
        "RCH_LOCAL_ONLY",
        "local_only",
        "c",
        _switch,
        _WORDS,
        "1: decided and logged as usual, always run here, reason `local-only`",
    ),
    Variable(
        "RCH_REQUIRE_REMOTE", "require_remote", "c", _switch, _WORDS, "1: `--require-remote`, 103 instead of a run here"
    ),
    Variable("RCH_DRY_RUN", "dry_run", "c", _switch, _WORDS, "1: print what would be decided, then run here"),
    Variable("RCH_WORKER", "worker", "c", _word, "a worker's name", "restricts the choice to this worker"),
    Variable(
        "RCH_WORKERS", "workers", "c", _names, "names with commas between", "restricts the choice to these workers"
    ),
    Variable("RCH_TAG", "tag", "c", _word, "one --tag value", "restricts the choice to workers with these tags"),
    Variable("RCH_MODE", "mode", "c", _one_of(*MODES), "local, remote or mock", "executor; `remote` never falls back"),
    Variable(
        "RCH_ADDR", "addr", "c", _word, "an address", "where the work goes; aliases FUGUE_ADDR, GASTOWN_FUGUE_ADDR"
    ),
    Variable(
        "RCH_COMPRESSION",
        "compression",
        "c",
        _whole(1, 19),
        "a whole number from 1 to 19",
        "zstd level of both directions, beats both keys",
    ),
    Variable(
        "RCH_NO_CACHE",
        "no_cache",
        "c",
        _switch,
        _WORDS,
        "1: join no running job, ignore affinity, hash anew, a fresh directory on the worker",
    ),
    Variable("RCH_VERBOSE", "verbose", "c", _switch, _WORDS, "`-v`; never the log's level"),
    Variable("RCH_QUIET", "quiet", "c", _switch, _WORDS, "`-q`; beats RCH_VERBOSE"),
    Variable("RCH_TOKEN", "token", "c", Secret, "a token", "bearer token for a tcp:// address"),
    Variable(
        "RCH_REQUEST_TIMEOUT",
        "request_timeout_s",
        "c, d",
        _number(0.1, 86400),
        "seconds",
        "limit of one control request (30)",
    ),
    Variable(
        "RCH_COMMAND_TIMEOUT",
        "command_timeout_s",
        "c, d",
        _number(0.1, 31_536_000),
        "seconds",
        "limit of a command run through the workspace API (30)",
    ),
    Variable("RCH_MOCK_SEED", "mock_seed", "c", _whole(0, 2**53), "a whole number", "seed of the mock executor"),
    Variable(
        "RCH_MOCK_FAILURE_RATE",
        "mock_failure_rate",
        "c",
        _number(0, 1),
        "a number from 0 to 1",
        "failures of the mock executor",
    ),
    Variable(
        "RCH_STATE_DIR",
        "state_dir",
        "c, d",
        _path,
        "an absolute path",
        "replaces `$XDG_STATE_HOME/rch`, and so says which rchd is meant",
    ),
    Variable("RCH_CONFIG", "config", "c, d", _path, "an absolute path", "replaces the user file"),
    Variable("RCH_INVENTORY", "inventory", "c, d", _path, "an absolute path", "replaces the inventory source"),
    Variable(
        "RCH_LOG_LEVEL",
        "log_level",
        "d",
        _one_of(*LOG_LEVELS),
        "debug, info, warning or error",
        "beats `general.log_level`",
    ),
    Variable("RCH_CORS_ORIGIN", "cors_origin", "d", _word, "an origin", "allowed origin of the HTTP API"),
    Variable(
        "RCH_RATE_LIMIT",
        "rate_limit",
        "d",
        _whole(1, 1_000_000),
        "a whole number from 1 to 1000000",
        "requests per 60 s and token (100)",
    ),
    Variable("RCH_WORKSPACE_DIR", "workspace_dir", "d", _path, "an absolute path", "base directory of API workspaces"),
    Variable(
        "RCH_MAX_FILE_MB",
        "max_file_mb",
        "d",
        _whole(1, 1_000_000),
        "a whole number from 1 to 1000000",
        "largest file of the workspace API (50)",
    ),
    Variable(
        "RCH_ON_WORKER",
        "on_worker",
        "j",
        _switch,
        _WORDS,
        "1 inside a job: hooks and shims are inert, rchd refuses to start",
    ),
    Variable("RCH_JOB", "job", "j", _word, "a job id", "the job's id"),
    Variable(
        "RCH_EXIT_STATUS",
        "exit_status",
        "j",
        _whole(0, 255),
        "a whole number from 0 to 255",
        "for `hooks.post_compile` only",
    ),
)

CLIENT_NAMES = tuple(v.name for v in VARIABLES if "c" in v.who) + ADDRESS_VARIABLES[1:]
"""Variables that travel with a request."""

DAEMON_NAMES = tuple(v.name for v in VARIABLES if "d" in v.who)
"""Variables that rchd is started with (coverage A-11)."""

NAMES = tuple(v.name for v in VARIABLES) + ADDRESS_VARIABLES[1:]


def read_switches(env: Mapping[str, str]) -> Switches:
    """Read all variables of *env*; empty counts as unset.

    Raises ConfigError with code ``bad-environment`` for the first value that is off. With RCH_BYPASS on, or inside a
    job, nothing else is looked at: the emergency exit must work whatever the rest holds.
    """
    values: dict[str, Any] = {}
    for first in ("RCH_ON_WORKER", "RCH_BYPASS"):
        variable = next(v for v in VARIABLES if v.name == first)
        if text := env.get(first, ""):
            values[variable.field] = _read(variable, text)
    if values.get("bypass") or values.get("on_worker"):
        return Switches(**values, job=env.get("RCH_JOB") or None)
    for variable in VARIABLES:
        if variable.field not in values and (text := env.get(variable.name, "")):
            values[variable.field] = _read(variable, text)
    addresses = [(name, env[name]) for name in ADDRESS_VARIABLES if env.get(name)]
    if addresses:
        values["addr_from"], values["addr"] = addresses[0]
        differing = [f"{name}={value}" for name, value in addresses[1:] if value != addresses[0][1]]
        if differing:
            values["notices"] = (f"{addresses[0][0]}={addresses[0][1]} counts, not {differing[0]}",)
    if values.get("quiet"):
        values["verbose"] = False
    return Switches(**values)


def nearest_variable(name: str) -> str:
    """The known variable that *name* was probably meant to be, or ""."""
    found = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.7)
    return found[0] if found else ""


def unknown_variables(env: Mapping[str, str]) -> tuple[str, ...]:
    """Names in *env* that begin with RCH_ and mean nothing; ``rch doctor`` reports them."""
    return tuple(sorted(name for name in env if name.startswith("RCH_") and name not in NAMES))


def _read(variable: Variable, text: str) -> Any:
    try:
        return variable.read(text)
    except ValueError:
        raise ConfigError(
            f"{variable.name} must be {variable.expects}, got {text[:80]!r}",
            key=variable.name,
            code="bad-environment",
            hint=f"unset {variable.name}",
        ) from None
