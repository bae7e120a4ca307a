"""Can this account run jobs in a sandbox? Found out by doing it."""

from __future__ import annotations

import subprocess
import threading
import time
from typing import Optional, Tuple

from rch.worker._launch import find_bwrap

AGAIN_S = 60.0
"""An inability is looked at again after this time: somebody may have repaired it."""

_lock = threading.Lock()
_known: Optional[Tuple[float, bool, str]] = None


def sandbox_ability(*, fresh: bool = False) -> Tuple[bool, str]:
    """(works, why not): this process's last probe, unless that said "no" long ago, or *fresh* is asked for."""
    global _known  # noqa: PLW0603  one answer per process
    with _lock:
        if _known is None or fresh or (not _known[1] and time.monotonic() - _known[0] > AGAIN_S):
            works, why = _probe()
            _known = (time.monotonic(), works, why)
        return _known[1], _known[2]


def _probe() -> Tuple[bool, str]:
    program = find_bwrap()
    if program is None:
        return False, "bubblewrap (bwrap) is not installed"
    command = [program, "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent"]
    # With a host name: a container's seccomp profile may refuse just that, and every job carries the caller's.
    command += [
        "--hostname",
        "probe",
        "--uid",
        "1000",
        "--gid",
        "1000",
        "--ro-bind",
        "/",
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "true",
    ]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, "bwrap cannot be run: %s" % error
    if done.returncode == 0:
        return True, ""
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return False, said[-1][:300] if said else "bwrap ended with status %d" % done.returncode
