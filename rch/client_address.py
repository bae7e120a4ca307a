"""Where a job is to go: addresses, read and written back in one form. No look-up, no connection, no expansion.

Imported only where an address was given.
"""

from __future__ import annotations

import os

from rch.client_options import ADDRESS_VARIABLES
from rch.client_paths import SOCKET_PATH_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rch.client_options import Choice, Options

_KNOWN = "unix, tcp, ssh, local, mock, k8s"
_ABSOLUTE = "a Unix socket path must be absolute, e.g. unix:///run/user/1000/rch/rchd.sock"
_LATER = "places by {} are not available yet; name a worker (rch workers list), local: or mock:"
_PORT = "port must be 1-65535"


def choose_place(choice: Choice, options: Options, environ: Mapping[str, str], *, verbose: bool) -> str:
    """Take over the place that is named, a flag before a variable (checklist A9); what names it, or ""."""
    variables = [(name, environ[name]) for name in ADDRESS_VARIABLES if environ.get(name)]
    if options.worker:
        source, value = "--worker", options.worker
        choice.worker = value
    elif options.on:
        source, value = "--on", options.on
        _take(choice, source, value, options.mode)
    elif options.tag:
        return ""
    else:
        source, value = variables[0]
        _take(choice, source, value, options.mode)
    differing = next((v for v in variables if v[1] != value), None)
    if differing and (verbose or source in ADDRESS_VARIABLES):
        choice.notes.append(f"{source} {value} counts, not {differing[0]}={differing[1]}")
    narrowing = [f"{name}={environ[name]}" for name in ("RCH_WORKER", "RCH_WORKERS", "RCH_TAG") if environ.get(name)]
    if verbose and narrowing:
        choice.notes.append(f"{source} {value} overrides {', '.join(narrowing)}")
    if choice.worker and not choice.mode:
        choice.mode = options.mode or "remote"  # of RCH_MODE nothing counts where a worker is named
    return source


def _take(choice: Choice, source: str, value: str, mode: str) -> None:
    """Let *choice* go where the address *value* of *source* says; "refuse" where that is not possible.

    mode: what ``--mode`` says, or "".
    """
    try:
        address = parse_address(value)
        if address.scheme == "name":
            choice.worker = address.text
        elif address.text in ("local:", "mock:"):
            choice.mode = address.scheme
        else:
            raise BadAddress(_LATER.format(address.scheme))
        if mode and mode != (choice.mode or "remote"):
            raise BadAddress(f"--mode {mode} says otherwise")
    except BadAddress as bad:
        choice.how, choice.code = "refuse", "bad-address"
        choice.line = f'address "{value}" (from {source}): {bad}'


class BadAddress(ValueError):
    """The value is no address; the message is the reason."""


class Address:
    """One address.

    scheme: "name" (a worker of the inventory), unix, tcp, ssh, local, mock or k8s.
    text:   the normal form: scheme and host in lower case, the port of ssh explicit.
    """

    __slots__ = ("scheme", "text")

    def __init__(self, scheme: str, text: str) -> None:
        self.scheme = scheme
        self.text = text


def parse_address(value: str) -> Address:
    """Read *value*; raises BadAddress."""
    if not value:
        raise BadAddress("it is empty")
    if " " in value:
        raise BadAddress("it has a space in it")
    if not value.isprintable():
        raise BadAddress("it has a control character in it")
    scheme, colon, rest = value.partition(":")
    if not colon or not _is_scheme(scheme):
        return _name(value)
    scheme = scheme.lower()
    if scheme == "tls":
        raise BadAddress("tls:// is reserved and not available yet; use rch tunnel, or tcp:// with a token")
    if scheme not in _KNOWN.split(", "):
        raise BadAddress(f'unknown scheme "{scheme}"; known: {_KNOWN}')
    if "#" in rest:
        raise BadAddress("an address has no fragment (#)")
    if "?" in rest and scheme != "mock":
        raise BadAddress("an address has no query (?)")
    if scheme == "local":
        if rest:
            raise BadAddress("local: names this machine and takes nothing behind it")
        return Address("local", "local:")
    if scheme == "mock":
        if rest and not rest.startswith("?"):
            raise BadAddress("mock: takes a query and nothing else, e.g. mock:?seed=1")
        return Address("mock", "mock:" + rest)
    if not rest.startswith("//"):
        raise BadAddress(f"write {scheme}://")
    return {"unix": _unix, "tcp": _tcp, "ssh": _ssh, "k8s": _k8s}[scheme](rest[2:])


def _is_scheme(word: str) -> bool:
    return word.isascii() and word[:1].isalpha() and all(c.isalnum() or c in "+-." for c in word)


def _name(value: str) -> Address:
    if "/" in value or value.startswith("~"):
        raise BadAddress(f"did you mean unix://{value}?" if value.startswith("/") else _ABSOLUTE)
    if ":" in value:
        raise BadAddress(f"did you mean tcp://{value} or ssh://{value}?")
    return Address("name", value)


def _unix(path: str) -> Address:
    if not path.startswith("/"):
        raise BadAddress(_ABSOLUTE)
    if len(os.fsencode(path)) > SOCKET_PATH_MAX:
        raise BadAddress(f"the path has {len(os.fsencode(path))} bytes, a socket's may have {SOCKET_PATH_MAX}")
    return Address("unix", "unix://" + os.path.normpath(path))


def _tcp(rest: str) -> Address:
    host, port, behind = _host_and_port(rest)
    if behind:
        raise BadAddress("nothing stands behind the port of tcp")
    if not port:
        raise BadAddress("tcp needs a port, e.g. tcp://127.0.0.1:9000")
    return Address("tcp", f"tcp://{host}:{port}")


def _ssh(rest: str) -> Address:
    user, at, place = rest.rpartition("@") if "@" in rest.partition("/")[0] else ("", "", rest)
    if ":" in user:
        raise BadAddress("a password does not belong into an address")
    if at and not user:
        raise BadAddress("the user is empty")
    host, port, workdir = _host_and_port(place)
    return Address("ssh", f"ssh://{user}{at}{host}:{port or 22}{workdir}")


def _k8s(rest: str) -> Address:
    parts = rest.split("/")
    if not 3 <= len(parts) <= 4 or not all(parts):
        raise BadAddress("write k8s://context/namespace/pod or k8s://context/namespace/pod/container")
    return Address("k8s", "k8s://" + rest)


def _host_and_port(text: str) -> tuple[str, int, str]:
    """Host in lower case, port (0 = none), and what follows from the first "/" on."""
    place, slash, behind = text.partition("/")
    if "@" in place:
        raise BadAddress("only ssh has a user")
    if place.startswith("["):
        host, closed, port = place[1:].partition("]")
        if not closed or (port and not port.startswith(":")):
            raise BadAddress("a bracket is missing, e.g. tcp://[::1]:9000")
        colon, port = port[:1], port[1:]
        shown = f"[{host.lower()}]"
    else:
        if "[" in place or "]" in place:
            raise BadAddress("a bracket is missing, e.g. tcp://[::1]:9000")
        host, colon, port = place.partition(":")
        shown = host.lower()
    if not host:
        raise BadAddress("the host is empty")
    if not colon:
        return shown, 0, slash + behind
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
        raise BadAddress(_PORT)
    return shown, int(port), slash + behind
