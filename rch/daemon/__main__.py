"""``python -m rch.daemon``: run rchd in the foreground; ``rch daemon start`` and the thin client detach it."""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import os
import sys

import structlog

from rch import __version__
from rch.config import load_config
from rch.config.places import places
from rch.daemon.rchd import Rchd
from rch.errors import RchError, Refused, UsageError
from rch.paths import AbsPath

NAME = "rchd"
"""The one word that a client which starts us puts behind the code: it shows in a list of processes."""

LOG_BYTES = 10 * 1024 * 1024


def main() -> int:
    """Start; 0 after a stop, else the error's exit status with its one line on stderr. There is nothing to choose."""
    if sys.argv[1:] not in ([], [NAME]):
        return _about(sys.argv[1:])
    os.umask(0o077)
    try:
        if os.environ.get("RCH_ON_WORKER"):
            raise Refused("rchd does not start inside a job (RCH_ON_WORKER is set)")
        where = places(dict(os.environ))
        os.makedirs(where.state, mode=0o700, exist_ok=True)
        config = load_config("/", dict(os.environ), state_dir=where.state)
        configure_log(config.log_file, os.environ.get("RCH_LOG_LEVEL") or config.general.log_level)
        asyncio.run(Rchd(where).run())
    except RchError as error:
        sys.stderr.write(error.one_line() + "\n")
        return error.exit_status
    except OSError as error:
        sys.stderr.write(f"rch: error[OSError] rchd cannot start: {error}; next: rch doctor\n")
        return 1
    # Threads of jobs may sit in a blocked read of a caller; the jobs themselves go on under their supervisors.
    logging.shutdown()
    os._exit(0)


def _about(words: list[str]) -> int:
    if words == ["--version"]:
        print(f"rchd {__version__}")
    elif words in (["--help"], ["-h"]):
        print("Usage: rchd\n\n  The daemon, in the foreground; takes no options. rch daemon start detaches it.")
    else:
        error = UsageError(f"rchd takes no arguments, got {' '.join(words)}", what=words[0], hint="rch daemon start")
        print(error.one_line(), file=sys.stderr)
        return error.exit_status
    return 0


def configure_log(path: AbsPath, level: str) -> None:
    """JSON lines (coverage C-19) into *path*, 0600, rotated by size."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=3, encoding="utf-8")
    os.chmod(path, 0o600)
    logging.basicConfig(handlers=[handler], level=level.upper(), format="%(message)s", force=True)
    for noisy in ("paramiko", "asyncio", "aiohttp", "fabric", "invoke"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        cache_logger_on_first_use=True,
    )


if __name__ == "__main__":
    sys.exit(main())
