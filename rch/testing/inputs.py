"""Real projects to build in tests: Debian's sources and crates of the registry, fetched once, verified, kept.

They come by the ordinary clients, apt-get (with directories of its own, the system's lists are not touched) and cargo,
and are checked against the hashes below, every time: from the network or from the cache ($RCH_INPUTS_CACHE, default
~/.cache/rch/inputs). What is in the cache needs no network.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from rch.errors import Fault
from rch.testing.lab import lock_directory
from rch.testing.lab_provision import program


@dataclass(frozen=True)
class Input:
    """One archive and what to do before the build that is tested.

    origin:  "debian" (the upstream archive of a source package of SUITE) or "crate".
    prepare: commands run here in the unpacked tree, standing for what a developer did earlier.
    build:   the command that tests send out.
    product: a file that it leaves, relative to the tree.
    """

    name: str
    version: str
    origin: str
    file: str
    sha256: str
    build: tuple[str, ...]
    product: str
    prepare: tuple[tuple[str, ...], ...] = ()


SUITE = "bookworm"

INPUTS = {
    item.name: item
    for item in (
        Input(
            "zlib",
            "1.2.13",
            "debian",
            "zlib_1.2.13.dfsg.orig.tar.bz2",
            "71feb7947e3c00ef125f83b79a4e529bde31171e5babe48b391f06758d1ab0a1",
            build=("make", "-j2"),
            product="libz.so.1.2.13",
            prepare=(("./configure",),),
        ),
        Input(
            "lua5.4",
            "5.4.4",
            "debian",
            "lua5.4_5.4.4.orig.tar.gz",
            "164c7849653b80ae67bec4b7473b884bf5cc8d2dca05653475ec2ed27b9ebf61",
            build=("make", "-j2", "linux"),
            product="src/lua",
        ),
        Input(
            "sqlite3",
            "3.40.1",
            "debian",
            "sqlite3_3.40.1.orig.tar.xz",
            "aaa776260ab4dc976db34aa7891819484c8676b5b2783123ebc6301e2ca5d655",
            build=("make", "sqlite3"),
            product="sqlite3",
            # One file of a quarter million lines is put together by Tcl, here: what is compiled needs a compiler alone.
            # Without optimisation for the time, without zlib because a worker need not have its headers.
            prepare=(
                ("./configure", "--disable-tcl", "--disable-readline", "CFLAGS=-O0 -g", "ac_cv_search_deflate=no"),
                ("make", "sqlite3.c", "shell.c"),
            ),
        ),
        Input(
            "ripgrep",
            "13.0.0",  # the newest that Debian 12's rustc 1.63 compiles; 35 dependencies in its Cargo.lock
            "crate",
            "ripgrep-13.0.0.crate",
            "f37c9d2c2bc7e00bd2653e13771397b94e452583da9b9494eabef627618d64bf",
            build=("cargo", "build", "--locked"),
            product="target/debug/rg",
        ),
    )
}


def cache_dir() -> str:
    """$RCH_INPUTS_CACHE, else rch/inputs in the user's cache directory."""
    given = os.environ.get("RCH_INPUTS_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.abspath(given) if given else os.path.join(base, "rch", "inputs")


def fetch(name: str) -> str:
    """Path of the verified archive of an input; raises Fault when it cannot be had or is not what it should be."""
    item = INPUTS[name]
    directory = cache_dir()
    os.makedirs(directory, mode=0o700, exist_ok=True)
    archive = os.path.join(directory, item.file)
    with lock_directory(directory):
        if os.path.exists(archive):
            if _sha256(archive) == item.sha256:
                return archive
            os.unlink(archive)  # cut short, or an older version of the hash
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            found = _from_debian(item, scratch) if item.origin == "debian" else _from_registry(item, scratch)
            digest = _sha256(found)
            if digest != item.sha256:
                message = f"{item.file} has sha256 {digest}, expected {item.sha256}"
                raise Fault(message, host="here")
            os.replace(found, archive)
    return archive


def unpack(name: str, directory: str) -> str:
    """Unpack and prepare an input as ``<directory>/<name>``; the path of that tree."""
    item = INPUTS[name]
    archive = fetch(name)
    tree = os.path.join(directory, item.name)
    os.makedirs(tree)
    _run(["tar", "-C", tree, "--strip-components=1", "--no-same-owner", "-xf", archive], cwd=directory)
    for command in item.prepare:
        _run(command, cwd=tree)
    return tree


def _from_debian(item: Input, scratch: str) -> str:
    """The source package's archives by apt-get, checked by its signatures as always."""
    for place in ("lists/partial", "cache/archives/partial"):
        os.makedirs(os.path.join(scratch, place))
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    signed = f" [signed-by={keyring}]" if os.path.exists(keyring) else ""
    mirror = os.environ.get("RCH_LAB_MIRROR", "http://deb.debian.org/debian")
    with open(os.path.join(scratch, "sources.list"), "w", encoding="utf-8") as file:
        file.write(f"deb-src{signed} {mirror} {SUITE} main\n")
    settings = {
        "Dir::Etc::sourcelist": f"{scratch}/sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": f"{scratch}/lists",
        "Dir::Cache": f"{scratch}/cache",
        # The sandbox user of apt cannot enter a private directory.
        "APT::Sandbox::User": "",
    }
    apt = [program("apt-get"), "-q", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))]
    _run([*apt, "update"], cwd=scratch)
    _run([*apt, "source", "--download-only", item.name], cwd=scratch)
    return _existing(os.path.join(scratch, item.file))


def _from_registry(item: Input, scratch: str) -> str:
    """The crate's archive by cargo, which checks it against the registry's index; CARGO_HOME is the user's own."""
    os.makedirs(os.path.join(scratch, "src"))
    with open(os.path.join(scratch, "src", "lib.rs"), "w", encoding="utf-8"):
        pass
    with open(os.path.join(scratch, "Cargo.toml"), "w", encoding="utf-8") as file:
        file.write(
            '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n'
            f'[dependencies]\n{item.name} = "={item.version}"\n'
        )
    _run([program("cargo"), "fetch", "--quiet"], cwd=scratch)
    home = os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo")
    cache = os.path.join(home, "registry", "cache")
    for registry in sorted(os.listdir(cache)) if os.path.isdir(cache) else ():
        crate = os.path.join(cache, registry, item.file)
        if os.path.exists(crate):
            return shutil.copy(crate, os.path.join(scratch, item.file))
    message = f"cargo fetched {item.name} {item.version}, but its archive is not in {cache}"
    raise Fault(message, host="here")


def _existing(path: str) -> str:
    if os.path.exists(path):
        return path
    message = f"the source package has no {os.path.basename(path)}: a newer version? Then its hash has to be new too"
    raise Fault(message, host="here")


def _run(command: Sequence[str], *, cwd: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RCH_")}
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=600, check=False
        )
        if done.returncode == 0:
            return
        said = (done.stdout + done.stderr).decode("utf-8", "replace").strip().splitlines()
        message = f"{' '.join(command[:3])} ended with status {done.returncode}: {said[-1] if said else 'no message'}"
        raise Fault(message, host="here")
    message = f"{' '.join(command[:3])} did not end within 10 minutes"
    raise Fault(message, host="here")


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
