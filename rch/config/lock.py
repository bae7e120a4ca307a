"""``toolchain.toml``: the versions that a fleet is held to, read by the playbooks (coverage D-11).

``python -m rch.config.lock [--file FILE]`` prints the inputs of the roles that it stands for, as JSON. A closed schema:
an unknown key is an error that names the nearest one. No file means no lock.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rch.config.positions import key_lines
from rch.errors import ConfigError, RchError

DEFAULT = os.path.join("rch", "toolchain.toml")
"""Below $XDG_CONFIG_HOME, else ~/.config."""


@dataclass(frozen=True)
class LockKey:
    """One key: the role's variable it sets, what a value must be, in words and as a pattern (of each, in a list)."""

    variable: str
    what: str
    pattern: str
    many: bool = False

    def accepts(self, value: object) -> bool:
        values = value if self.many and isinstance(value, list) else [value]
        if self.many and not isinstance(value, list):
            return False
        return all(isinstance(one, str) and re.fullmatch(self.pattern, one) for one in values)


_WORD = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
KEYS: Mapping[tuple[str, str], LockKey] = {
    ("rust", "channel"): LockKey(
        "toolchain_rust_channel", "stable, beta, nightly or a version like 1.95.0", r"stable|beta|nightly|\d+\.\d+\.\d+"
    ),
    ("rust", "date"): LockKey("toolchain_rust_date", "a date like 2026-01-15", r"\d{4}-\d{2}-\d{2}"),
    ("rust", "components"): LockKey("toolchain_rust_components", "a list of components", _WORD, many=True),
    ("rust", "targets"): LockKey("toolchain_rust_targets", "a list of target triples", _WORD, many=True),
    ("rust", "method"): LockKey(
        "toolchain_rust_method", "auto, copy, distro, rustup or none", r"auto|copy|distro|rustup|none"
    ),
    ("cpp", "gcc_version"): LockKey("toolchain_cpp_gcc_version", 'a major version in quotes, like "12"', r"\d{1,2}"),
    ("cpp", "clang_version"): LockKey(
        "toolchain_cpp_clang_version", 'a major version in quotes, like "14"', r"\d{1,2}"
    ),
    ("caching", "rustc_wrapper"): LockKey("compiler_cache_rustc_wrapper", 'sccache or ""', r"sccache|"),
    ("caching", "cc_wrapper"): LockKey("compiler_cache_cc_wrapper", 'ccache, sccache or ""', r"ccache|sccache|"),
}


def lock_path(env: Mapping[str, str]) -> str:
    """Where the lock of this user lies."""
    return os.path.join(env.get("XDG_CONFIG_HOME") or os.path.join(env.get("HOME", "/"), ".config"), DEFAULT)


def read_lock(path: str) -> dict[tuple[str, str], Any]:
    """The keys that the file at *path* sets; {} where there is none. Raises ConfigError with file, line and remedy."""
    try:
        with open(path, "rb") as stream:
            text = stream.read(1 << 20).decode()
            tables = tomllib.loads(text)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"is no TOML: {error}", file=path, hint=f"$EDITOR {path}") from error
    lines = key_lines(text)
    found: dict[tuple[str, str], Any] = {}
    for section, table in tables.items():
        if not isinstance(table, dict) or section not in {name for name, _ in KEYS}:
            raise _unknown((section,), lines, path)
        for name, value in table.items():
            key = KEYS.get((section, name))
            if key is None:
                raise _unknown((section, name), lines, path)
            if not key.accepts(value):
                shown = f'"{value}"' if isinstance(value, str) else str(value)
                message = f"{section}.{name} must be {key.what}, got {shown[:60]}"
                raise ConfigError(message, file=path, line=lines.get((section, name), 0), key=f"{section}.{name}")
            found[section, name] = value
    channel = found.get(("rust", "channel"), "")
    if ("rust", "date") in found and channel not in ("stable", "beta", "nightly"):
        message = f'rust.date goes with a channel (stable, beta, nightly), not with "{channel}"'
        raise ConfigError(message, file=path, line=lines.get(("rust", "date"), 0), key="rust.date")
    return found


def _unknown(path: tuple[str, ...], lines: Mapping[tuple[str, ...], int], file: str) -> ConfigError:
    name = ".".join(path)
    known = [".".join(key) for key in KEYS] + sorted({section for section, _ in KEYS})
    close = [key for key in known if key.rpartition(".")[2] == path[-1]]  # the right key in a wrong section, or in none
    close = close or difflib.get_close_matches(name, known, 1, 0.6)
    nearest = close[0] if close else ""
    tail = f"; did you mean {nearest}?" if nearest else f"; known are {', '.join(known[: len(KEYS)])}"
    return ConfigError(f"unknown key {name}{tail}", file=file, line=lines.get(path, 0), key=name, nearest=nearest)


def role_variables(lock: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
    """Inputs of the roles: variable -> value."""
    return {KEYS[key].variable: value for key, value in lock.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m rch.config.lock", description="The lock of toolchains, as JSON.")
    parser.add_argument("--file", default="", help="default: rch/toolchain.toml below the user's configuration")
    chosen = parser.parse_args(arguments)
    path = chosen.file or lock_path(os.environ)
    try:
        if chosen.file and not os.path.exists(path):
            raise ConfigError("there is no such file", file=path)
        lock = read_lock(path)
    except RchError as error:
        print(error.one_line(), file=sys.stderr)
        return error.exit_status
    keys = {".".join(key): value for key, value in lock.items()}
    print(json.dumps({"file": path if lock else "", "keys": keys, "variables": role_variables(lock)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
