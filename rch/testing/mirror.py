"""A mirror of the servers that toolchains are downloaded from, made of this machine's own Rust and Go.

``python -m rch.testing.mirror DIR`` fills DIR, for any static web server, and prints as JSON what to ask it for:

    rustup/archive/VERSION/TRIPLE/rustup-init{,.sha256}     this machine's rustup, which is its own installer
    dist/channel-rust-VERSION.toml{,.sha256}, dist/DATE/*   the toolchain that it uses, in packages for rustup
    go/goVERSION.tar.gz                                     GOROOT

So a real rustup installs a real toolchain where rustup's servers are out of reach, and the worker ends with the very
compiler of this machine.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from rch.errors import RchError, Refused
from rch.testing.lab_provision import program

OFFICIAL = "https://static.rust-lang.org"
"""Stands in every channel's manifest; rustup puts its RUSTUP_DIST_SERVER there."""

PACKAGES = ("rustc", "cargo", "rust-std", "clippy-preview", "rustfmt-preview")

FOREIGN = "wasm32-wasip1"
"""A target that this machine has no standard library for. Its package holds a core library that nothing is in."""

_FAST = 1
"""Level of compression: the packages are unpacked once, next door."""


def make_mirror(directory: str) -> dict[str, str]:
    """Fill *directory*. Raises Refused where this machine's Rust is not rustup's, or it has no Go."""
    return {**_rust(directory), **_go(directory)}


def _rust(directory: str) -> dict[str, str]:
    sysroot = _ask("rustc", "--print", "sysroot")
    rustlib = os.path.join(sysroot, "lib", "rustlib")
    try:
        with open(os.path.join(rustlib, "multirust-channel-manifest.toml"), "rb") as file:
            channel = tomllib.load(file)
    except FileNotFoundError:
        message = f"{sysroot} was not installed by rustup, so its packages are unknown"
        raise Refused(message, hint="rustup toolchain install stable, here") from None
    os.makedirs(directory, exist_ok=True)
    (triple,) = re.findall(r"(?m)^host: (\S+)$", _ask("rustc", "-vV"))
    version, date = channel["pkg"]["rust"]["version"].split()[0], channel["date"]
    hashes: dict[tuple[str, str], str] = {}
    for package in PACKAGES:
        listed = os.path.join(rustlib, f"manifest-{package}-{triple}")
        with open(listed, encoding="utf-8") as file:
            rows = [row for row in file.read().splitlines() if os.path.lexists(os.path.join(sysroot, _path(row)))]
        files = {_path(row): os.path.join(sysroot, _path(row)) for row in rows}
        hashes[package, triple] = _package(directory, date, f"{package}-{triple}", version, rows, files)
    inside = f"lib/rustlib/{FOREIGN}/lib/libcore-empty.rlib"
    content = _empty_core(directory)
    name = f"rust-std-{FOREIGN}"
    hashes["rust-std", FOREIGN] = _package(directory, date, name, version, [f"file:{inside}"], {inside: content})
    manifest = "".join(_manifest(channel, version, triple, hashes))
    _with_checksum(os.path.join(directory, "dist", f"channel-rust-{version}.toml"), manifest.encode())
    rustup = os.path.realpath(program("rustup"))
    said = _ask(rustup, "--version").split()[1]
    place = os.path.join(directory, "rustup", "archive", said, triple)
    os.makedirs(place)
    with open(rustup, "rb") as file:
        _with_checksum(os.path.join(place, "rustup-init"), file.read())
    return {"rustup_version": said, "rust_channel": version, "rust_target": FOREIGN}


def _empty_core(directory: str) -> bytes:
    """A library ``core`` for FOREIGN, by this machine's compiler."""
    source, made = os.path.join(directory, "core.rs"), os.path.join(directory, "libcore.rlib")
    with open(source, "w", encoding="utf-8") as file:
        file.write("#![feature(no_core)]\n#![no_core]\n")
    # Only a compiler of the nightly channel, or one that is told to be, takes a feature.
    words = ("--target", FOREIGN, "--crate-type", "rlib", "-o", made, source)
    _ask("rustc", *words, env={**os.environ, "RUSTC_BOOTSTRAP": "1"})
    with open(made, "rb") as library:
        content = library.read()
    os.unlink(source)
    os.unlink(made)
    return content


def _manifest(
    channel: Mapping[str, Any], version: str, triple: str, hashes: Mapping[tuple[str, str], str]
) -> Iterator[str]:
    """The channel's manifest, with the packages of *hashes* alone, as TOML."""
    text = json.dumps  # a TOML string, for what stands in these
    yield f'manifest-version = "2"\ndate = {text(channel["date"])}\n'
    for (package, target), digest in hashes.items():
        if target == triple:
            yield f"[pkg.{package}]\nversion = {text(channel['pkg'][package]['version'])}\n"
        url = f"{OFFICIAL}/dist/{channel['date']}/{package}-{target}-{version}.tar.gz"
        yield f"[pkg.{package}.target.{target}]\navailable = true\nurl = {text(url)}\nhash = {text(digest)}\n"
    yield f"[pkg.rust]\nversion = {text(channel['pkg']['rust']['version'])}\n"
    yield f"[pkg.rust.target.{triple}]\navailable = true\n"
    needed = ("rustc", "cargo", "rust-std")
    for package, target in hashes:
        part = "components" if target == triple and package in needed else "extensions"
        yield f"[[pkg.rust.target.{triple}.{part}]]\npkg = {text(package)}\ntarget = {text(target)}\n"
    for short, row in channel["renames"].items():
        if row["to"] in PACKAGES:
            yield f"[renames.{short}]\nto = {text(row['to'])}\n"
    yield f"[profiles]\nminimal = {text(needed)}\n"


def _package(
    directory: str, date: str, name: str, version: str, rows: Sequence[str], files: Mapping[str, str | bytes]
) -> str:
    """Pack *files* as component *name*, whose manifest has *rows*, in the format of rustup; its SHA-256."""
    target = os.path.join(directory, "dist", date, f"{name}-{version}.tar.gz")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    top = f"{name}-{version}"
    members: dict[str, str | bytes | None] = {
        f"{top}/rust-installer-version": b"3\n",
        f"{top}/components": f"{name}\n".encode(),
        f"{top}/{name}": None,
        f"{top}/{name}/manifest.in": "".join(f"{row}\n" for row in rows).encode(),
    }
    for path, source in files.items():
        # As in rustup's own, every directory comes before what lies in it.
        for folder in reversed(PurePosixPath(path).parents[:-1]):
            members[f"{top}/{name}/{folder}"] = None
        members[f"{top}/{name}/{path}"] = source
    with tarfile.open(target, "w:gz", compresslevel=_FAST) as archive:
        for name_there, content in members.items():
            _add(archive, name_there, content)
    return _sha256(target)


def _add(archive: tarfile.TarFile, path: str, source: str | bytes | None) -> None:
    """Add *source*, a file here or a content, as *path*; None makes a directory."""
    member = tarfile.TarInfo(path)
    if isinstance(source, str):
        archive.add(source, path, filter=_of_nobody)
    elif source is None:
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(member)
    else:
        member.size, member.mode = len(source), 0o644
        archive.addfile(member, io.BytesIO(source))


def _of_nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """As such archives are: nobody's in particular."""
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _go(directory: str) -> dict[str, str]:
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOENV": "off"}
    root = os.path.realpath(_ask("go", "env", "GOROOT", env=environment))
    version = _ask("go", "env", "GOVERSION", env=environment)
    target = os.path.join(directory, "go", f"{version}.tar.gz")
    os.makedirs(os.path.dirname(target))
    left_out = {f"go/{name}" for name in ("test", "doc", "api")}
    with tarfile.open(target, "w:gz", compresslevel=_FAST) as archive:
        archive.add(root, "go", filter=lambda member: None if member.name in left_out else _of_nobody(member))
    return {"go_version": version, "go_archive": f"go/{version}.tar.gz", "go_sha256": _sha256(target)}


def _ask(name: str, *words: str, env: Mapping[str, str] | None = None) -> str:
    """What program *name* of this machine prints, asked where no file of a project has a say."""
    done = subprocess.run(
        [program(name), *words], cwd="/", env=env, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def _path(row: str) -> str:
    """``file:bin/rustc`` -> ``bin/rustc``."""
    return row.partition(":")[2]


def _with_checksum(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
    with open(f"{path}.sha256", "w", encoding="utf-8") as file:
        file.write(f"{hashlib.sha256(content).hexdigest()}  {os.path.basename(path)}\n")


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m rch.testing.mirror", description="Make a mirror of toolchains.")
    parser.add_argument("directory", metavar="DIR")
    directory = parser.parse_args().directory
    try:
        shutil.rmtree(directory, ignore_errors=True)
        print(json.dumps(make_mirror(directory)))
    except RchError as error:
        print(error.one_line(), file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
