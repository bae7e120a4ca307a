"""What a fetch step may see of the job's environment: it runs where the caches of all jobs can be written (EX-10).

The environment is the caller's, who may be an agent in a sandbox; the tree and, when the step runs again, HOME and /tmp
are the project's. None of them may decide which program runs there, or whom the registry's answers are believed from.
"""

from __future__ import annotations

import os
import re
from typing import Dict, List, Mapping, Sequence

from rch.worker._sandbox import SYSTEM, Mount
from rch.worker.refusal import Refusal

_KEPT = re.compile(
    r"HOME|USER|LOGNAME|LANG|LANGUAGE|LC_[A-Z]+|TZ|TERM|PWD|PATH|TMPDIR|TMP|TEMP|RCH_[A-Z_]+"
    r"|RUSTUP_[A-Z_]+|CARGO_[A-Za-z0-9_]+|GO[A-Z0-9_]+"
)
_DROPPED = re.compile(
    r".*CREDENTIAL.*|CARGO_HTTP_(?:PROXY_)?CAINFO|CARGO_BUILD_RUST.*|CARGO_ALIAS_.*|GOAUTH|GOSUMDB|GOROOT"
)
_NO_PROJECT_CODE = {"RUSTC": "rustc", "RUSTC_WRAPPER": "", "RUSTC_WORKSPACE_WRAPPER": ""}
"""cargo fetch asks the compiler for its version, by whatever the project's ``.cargo/config.toml`` names; a variable
goes before that file."""


def fetch_environment(env: Mapping[str, str], mounts: Sequence[Mount]) -> Dict[str, str]:
    """*env* without what could start, or believe, something of the project's."""
    kept = {name: value for name, value in env.items() if _KEPT.fullmatch(name) and not _DROPPED.fullmatch(name)}
    places = [place for place in kept.get("PATH", "").split(":") if _is_fixed(place, mounts)]
    return {**kept, **_NO_PROJECT_CODE, "PATH": ":".join(places or ["/usr/bin", "/bin"])}


def check_program(argv: Sequence[str], mounts: Sequence[Mount]) -> None:
    """Refuse a step whose program is named by a path in what a job can write."""
    if "/" in argv[0] and not _is_fixed(os.path.dirname(argv[0]), mounts):
        raise Refusal("bad-request", "a fetch step does not run %s, which the project may have made" % ascii(argv[0]))


def _is_fixed(place: str, mounts: Sequence[Mount]) -> bool:
    """True for a directory of the system or of a toolchain: nothing that a job can write leads there."""
    parts: List[str] = place.split("/")
    if not place.startswith("/") or ".." in parts:
        return False
    above = [mount for mount in mounts if place == mount.path or place.startswith(mount.path.rstrip("/") + "/")]
    if above:
        return not max(above, key=lambda mount: len(mount.path)).writable
    return parts[1] in SYSTEM
