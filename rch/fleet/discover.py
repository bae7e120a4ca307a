"""Which machines this user already logs in to: hosts of ssh_config, aliases of shell rc files, and what they are.

Files are parsed, never sourced; nothing is contacted before :func:`probe`. What ssh would use for a name, it says
itself (``ssh -G``).
"""

from __future__ import annotations

import glob
import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from rch.errors import UsageError

RC_FILES = (".zshrc", ".zshrc.local", ".bashrc", ".bash_aliases")

PROBE_S = 5
"""Seconds for a connection, and as many again for the look around."""

PARALLEL = 16

FILE_MAX = 1024 * 1024
"""Bytes read of one rc file or ssh_config; what lies beyond is no alias that a person wrote."""

_INCLUDE_DEPTH = 16  # what ssh itself allows

_ALIAS = re.compile(r"""^\s*alias\s+(?:--\s+)?([A-Za-z0-9_][A-Za-z0-9_.-]*)=(?:'([^']*)'|"([^"]*)")\s*(?:[#;].*)?$""")

_PLACE = re.compile(
    r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]]+))(?::(\d{1,5}))?"  # host:port, [address]:port
    r"|([0-9A-Fa-f]*:[0-9A-Fa-f:.%]*:[0-9A-Fa-f:.%]*)"  # a bare IPv6 address
)

# One line of sh, answered in one line a fact. No Python is needed there yet.
_LOOK = (
    "echo rch-saw system $(uname -s); "
    "echo rch-saw cores $(nproc 2>/dev/null || echo 0); "
    "echo rch-saw uid $(id -u); "
    "echo rch-saw sudo $(sudo -n true 2>/dev/null && echo yes || echo no); "
    'for p in python3 rustc cc; do PATH="$PATH:$HOME/.cargo/bin" command -v $p >/dev/null '
    "&& echo rch-saw $p yes || echo rch-saw $p no; done"
)


@dataclass(frozen=True)
class Candidate:
    """A machine that may become a worker.

    name:    for the inventory: the alias under which the user knows it.
    target:  what ssh is given; an alias of ssh_config brings all its settings along.
    host, port, user: what ssh makes of it.
    key, own_port: only where an alias or a flag gives them; else ssh knows them by the target.
    source:  the file it was found in, or "" when it was named.
    """

    name: str
    target: str
    host: str
    port: int
    user: str
    key: str = ""
    own_port: int | None = None
    source: str = ""

    @property
    def command(self) -> str:
        """What a person types to get there."""
        port = ["-p", str(self.own_port)] if self.own_port else []
        key = ["-i", self.key] if self.key else []
        return shlex.join(["ssh", *key, *port, self.target if "@" in self.target else f"{self.user}@{self.target}"])

    @property
    def same(self) -> tuple[str, int, str]:
        """The same host, port and user are one machine."""
        return self.host, self.port, self.user


@dataclass(frozen=True)
class Found:
    """What a probe of a candidate saw. ``why`` says why it cannot be a worker; empty when it can."""

    candidate: Candidate
    why: str = ""
    system: str = ""
    cores: int = 0
    rust: bool = False
    c: bool = False
    root: bool = False

    def as_json(self) -> dict[str, Any]:
        one = self.candidate
        return {
            "name": one.name,
            "host": one.host,
            "port": one.port,
            "user": one.user,
            "identity_file": one.key or None,
            "source": one.source or None,
            "system": self.system or None,
            "cores": self.cores,
            "rust": self.rust,
            "c": self.c,
            "administrator": self.root,
            "usable": not self.why,
            "reason": self.why,
        }


def variables_of(found: Found, ssh_config: str = "", *, embedded: bool = False) -> dict[str, Any]:
    """The inventory's variables for a machine that was looked at. What ssh knows by the name is not said again.

    embedded: nothing is to be installed there, although we might.
    """
    one = found.candidate
    variables: dict[str, Any] = {}
    if one.target != one.name:
        variables["ansible_host"] = one.target
    variables["ansible_user"] = one.user
    if one.own_port is not None and one.own_port != 22:
        variables["ansible_port"] = one.own_port
    if one.key:
        variables["ansible_ssh_private_key_file"] = one.key
    if ssh_config:
        variables["ansible_ssh_common_args"] = f"-F {shlex.quote(ssh_config)}"
    if embedded or not found.root:
        variables["rch_embedded"] = True
    return variables


def discover(home: str, ssh_config: str = "") -> list[Candidate]:
    """Every machine that *home*'s ssh_config and rc files name, each once, in the order of the files.

    ssh_config: another file than ``~/.ssh/config``.
    """
    config = ssh_config or os.path.join(home, ".ssh", "config")
    found: dict[tuple[str, int, str], Candidate] = {}
    for name in ssh_config_hosts(config, home):
        candidate = resolve(name, name, ssh_config=ssh_config, source=config)
        if candidate is not None:
            found.setdefault(candidate.same, candidate)
    for file in RC_FILES:
        path = os.path.join(home, file)
        for name, command in alias_lines(_text(path)):
            candidate = from_alias(name, command, ssh_config=ssh_config, source=path)
            if candidate is not None:
                found.setdefault(candidate.same, candidate)
    return _distinct_names(found.values())


def ssh_config_hosts(path: str, home: str, depth: int = 0) -> Iterator[str]:
    """The names behind ``Host`` that are no pattern, of *path* and of what it includes."""
    seen: dict[str, None] = {}
    for line in _text(path).splitlines():
        match = re.match(r"\s*(host|include)(?:\s*=\s*|\s+)(.*)", line, re.IGNORECASE)
        if match is None:
            continue
        try:
            words = shlex.split(match[2], comments=True)
        except ValueError:
            continue  # ssh will complain about it better than we could
        if match[1].lower() == "host":
            seen.update(dict.fromkeys(word for word in words if not re.search(r"[*?!]", word)))
        elif depth < _INCLUDE_DEPTH:
            for word in words:
                # Relative to ~/.ssh, as ssh_config(5) says of a user's file.
                base = os.path.expanduser(word) if word.startswith("~") else os.path.join(home, ".ssh", word)
                for included in sorted(glob.glob(base)):
                    seen.update(dict.fromkeys(ssh_config_hosts(included, home, depth + 1)))
    yield from seen


def alias_lines(text: str) -> Iterator[tuple[str, str]]:
    """Name and command of each line ``alias NAME='ssh …'``, in either quote."""
    for line in text.splitlines():
        match = _ALIAS.match(line)
        if match is not None:
            command = match[2] if match[2] is not None else match[3]
            if re.match(r"\s*ssh\s", command):
                yield match[1], command.strip()


def from_alias(name: str, command: str, *, ssh_config: str = "", source: str = "") -> Candidate | None:
    """The machine that ``ssh [-i KEY] [-p PORT] [USER@]HOST`` logs in to; None for anything else."""
    try:
        words = shlex.split(command)[1:]
    except ValueError:
        return None
    given: dict[str, str] = {}
    while words and words[0].startswith("-"):
        flag, attached = words[0][:2], words[0][2:]
        if flag in ("-A", "-t", "-q", "-C", "-4", "-6", "-X", "-Y") and not attached.strip("AtqCXY46"):
            words = words[1:]
            continue
        if flag not in ("-i", "-p", "-l") or (not attached and len(words) < 2):
            return None
        given[flag] = attached or words[1]
        words = words[1:] if attached else words[2:]
    if len(words) != 1:
        return None  # a command behind the host, or no host
    try:
        return named(
            f"{name}={words[0]}",
            port=int(given["-p"]) if "-p" in given else None,
            user=given.get("-l", ""),
            key=given.get("-i", ""),
            ssh_config=ssh_config,
            source=source,
        )
    except (UsageError, ValueError):
        return None


def named(
    text: str, *, port: int | None = None, user: str = "", key: str = "", ssh_config: str = "", source: str = ""
) -> Candidate:
    """The machine that ``[NAME=][USER@]HOST[:PORT]`` names; raises UsageError for what is no such word."""
    name, _, rest = text.rpartition("=")
    at, _, host = rest.rpartition("@")
    match = _PLACE.fullmatch(host)
    if match is None or (at and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.@\\-]{0,63}", at)):
        raise UsageError(f"a host is given as [NAME=][USER@]HOST[:PORT], not {text!r}", what=text)
    if match[3] and not 1 <= int(match[3]) <= 65535:
        raise UsageError(f"{text}: a port is a whole number from 1 to 65535", what=text)
    address = match[1] or match[2] or match[4]
    if not name:
        name = address if re.fullmatch(r"[\dA-Fa-f:]*[\d.:]+", address) else address.partition(".")[0]
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,252}", name) or not re.fullmatch(r"[A-Za-z0-9_.:%-]+", address):
        raise UsageError(f"{name!r} cannot be a worker's name or address", what=text)
    found = resolve(
        name,
        address,
        port=int(match[3]) if match[3] else port,
        user=at or user,
        key=os.path.expanduser(key) if key else "",
        ssh_config=ssh_config,
        source=source,
    )
    if found is None:
        raise UsageError(f"ssh makes nothing of {address!r}", what=text, hint=f"ssh -G {address}")
    return found


def resolve(
    name: str,
    target: str,
    *,
    port: int | None = None,
    user: str = "",
    key: str = "",
    ssh_config: str = "",
    source: str = "",
) -> Candidate | None:
    """What ``ssh -G`` makes of *target*; None when ssh refuses its configuration."""
    words = ["ssh", *(["-F", ssh_config] if ssh_config else []), "-G"]
    words += [*(["-p", str(port)] if port else []), *(["-l", user] if user else [])]
    try:
        done = subprocess.run(
            [*words, "--", target], stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    values: dict[str, str] = {}
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        word, _, value = line.partition(" ")
        values.setdefault(word, value)
    return Candidate(
        name=name,
        target=target,
        host=values.get("hostname", target),
        port=int(values.get("port", "22")),
        user=values.get("user", user),
        key=key,
        own_port=port,
        source=source,
    )


def probe_all(candidates: Sequence[Candidate], *, ssh_config: str = "") -> list[Found]:
    """Look at all of them at once, in their order; each look has PROBE_S seconds to connect."""
    if not candidates:
        return []
    with ThreadPoolExecutor(max_workers=min(PARALLEL, len(candidates))) as pool:
        return list(pool.map(lambda one: probe(one, ssh_config=ssh_config), candidates))


def probe(candidate: Candidate, *, ssh_config: str = "") -> Found:
    """Log in once without asking anything, and look; host keys that nobody has accepted yet are refused."""
    words = ["ssh", *(["-F", ssh_config] if ssh_config else [])]
    words += ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={PROBE_S}", "-o", "StrictHostKeyChecking=yes"]
    words += ["-o", "ControlPath=none", "-o", "ForwardAgent=no", "-o", "ForwardX11=no", "-o", "ClearAllForwardings=yes"]
    words += ["-p", str(candidate.port), "-l", candidate.user]
    words += ["-i", candidate.key] if candidate.key else []
    try:
        done = subprocess.run(
            [*words, "--", candidate.target, _LOOK],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_S * 2,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Found(candidate, f"no answer within {PROBE_S * 2} s")
    except OSError as error:
        return Found(candidate, f"ssh cannot be started: {error.strerror}")
    seen = dict(re.findall(r"^rch-saw (\w+) (.*?)\s*$", done.stdout.decode("utf-8", "replace"), re.MULTILINE))
    if "system" not in seen:
        return Found(candidate, _why(done.stderr.decode("utf-8", "replace"), candidate))
    found = Found(
        candidate,
        system=seen["system"],
        cores=int(seen["cores"]) if seen.get("cores", "").isdigit() else 0,
        rust=seen.get("rustc") == "yes",
        c=seen.get("cc") == "yes",
        root=seen.get("uid") == "0" or seen.get("sudo") == "yes",
    )
    if found.system != "Linux":
        return replace(found, why=f"{found.system}; a worker runs Linux")
    if seen.get("python3") != "yes":
        return replace(found, why="no Python 3 there; apt install python3, or dnf install python3")
    return found


def _why(stderr: str, candidate: Candidate) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not line.startswith("**")]
    text = lines[-1] if lines else "ssh said nothing"
    if "Host key verification failed" in stderr or "host key is known" in stderr:
        return f"its host key is unknown here; log in once and compare the fingerprint: {candidate.command}"
    return text[:200]


def _distinct_names(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Two machines under one name: the later one is called by its address."""
    named_already: dict[str, Candidate] = {}
    for one in candidates:
        name = one.name if one.name not in named_already else one.host
        named_already.setdefault(name, replace(one, name=name))
    return list(named_already.values())


def _text(path: str) -> str:
    try:
        with open(path, "rb") as stream:
            return stream.read(FILE_MAX).decode("utf-8", "replace")
    except OSError:
        return ""
