"""Small files outside the roots that a tool reads: cargo's configuration up the tree, toolchain files.

Only files with these fixed names are read for a caller; anything else outside has to become a root, for which the
caller proves access (lessons SE-08). Credentials in them stay here (lessons SE-02).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

import tomlkit
from tomlkit.exceptions import TOMLKitError

from rch.errors import NotOffloadable
from rch.paths import AbsPath
from rch.project.model import ExtraFile
from rch.project.places import is_system

_NAMES = frozenset(("config", "config.toml", "rust-toolchain", "rust-toolchain.toml", "settings.toml"))
_LIMIT = 256 * 1024
_SECRET_KEYS = frozenset(("token", "secret-key", "password"))


def extra_files(paths: Iterable[str]) -> tuple[ExtraFile, ...]:
    """Those of *paths* that exist, scrubbed. Raises NotOffloadable ``missing-input`` for one with another name."""
    found = []
    for path in paths:
        if is_system(path):
            continue  # the worker's own, as for every system file
        try:
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
                status = os.fstat(stream.fileno())
                real = os.readlink(f"/proc/self/fd/{stream.fileno()}")
                content = stream.read(_LIMIT + 1) if stat.S_ISREG(status.st_mode) else b""
        except FileNotFoundError:
            continue
        except NotADirectoryError:
            continue
        except OSError as error:
            raise NotOffloadable(f"{path} cannot be read", code="missing-input", hint=f"ls -l {path}") from error
        if not stat.S_ISREG(status.st_mode):
            continue
        name = os.path.basename(path)
        # A link may lead to a file of the same name (dot files kept elsewhere), not to whatever a repository names.
        if name not in _NAMES or os.path.basename(real) != name or len(content) > _LIMIT:
            raise NotOffloadable(
                f"{path} is read by the command and is not sent", code="missing-input", hint="move it into the project"
            )
        found.append(ExtraFile(AbsPath(path), without_secrets(content), status.st_mode & 0o777))
    return tuple(found)


def without_secrets(content: bytes) -> bytes:
    """TOML *content* without registry tokens and passwords; what is not TOML has none of cargo's and stays."""
    try:
        document = tomlkit.parse(content.decode())
    except (TOMLKitError, UnicodeDecodeError):
        return content
    if not _scrub(document):
        return content
    return tomlkit.dumps(document).encode()


def _scrub(table: object) -> bool:
    changed = False
    if isinstance(table, dict):
        for key in list(table):
            if key in _SECRET_KEYS and isinstance(table[key], str):
                del table[key]
                changed = True
            else:
                changed |= _scrub(table[key])
    return changed
