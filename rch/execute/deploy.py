"""Put this version's rch-wkr on a worker that runs another one: a versioned directory, then one symlink."""

from __future__ import annotations

import os
import shlex
import tempfile
from typing import Protocol

from rch.errors import ToolMissing
from rch.worker.build import build


class RunRemote(Protocol):
    """Run one shell command on the worker; (exit status, combined output)."""

    def __call__(self, command: str, stdin: bytes = b"", timeout_s: float = 60.0) -> tuple[int, bytes]: ...


def deploy(run: RunRemote, cache_dir: str, host: str) -> str:
    """Upload, verify and switch; returns the build's sha256. Jobs that run keep the version they started with.

    Raises ToolMissing when the worker cannot keep the file (disk, permissions).
    """
    with tempfile.TemporaryDirectory(prefix="rch-deploy-") as directory:
        path = os.path.join(directory, "rch-wkr")
        digest = build(path)
        with open(path, "rb") as file:
            data = file.read()
    version = f"{cache_dir}/versions/{digest[:16]}"
    quoted = {"v": shlex.quote(version), "c": shlex.quote(cache_dir), "d": digest, "t": shlex.quote(digest[:16])}
    command = (
        "umask 077; set -e; mkdir -p {v} {c}/bin; cat > {v}/rch-wkr.$$; "
        "printf '%s  %s\\n' {d} {v}/rch-wkr.$$ | sha256sum -c --status; chmod 700 {v}/rch-wkr.$$; "
        "mv -f {v}/rch-wkr.$$ {v}/rch-wkr; ln -s ../versions/{t}/rch-wkr {c}/bin/rch-wkr.$$; "
        "mv -fT {c}/bin/rch-wkr.$$ {c}/bin/rch-wkr"
    ).format(**quoted)
    status, output = run(command, data)
    if status != 0:
        text = " ".join(output.decode("utf-8", "replace").split())[:300]
        raise ToolMissing(
            f"{host}: rch-wkr could not be deployed: {text}",
            host=host,
            tool="rch-wkr",
            hint="rch fleet apply",
        )
    return digest
