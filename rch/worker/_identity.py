"""Who a compiler is. The same code runs on the workstation and on the worker, and the texts are compared for equality.

For Rust the whole of ``rustc -vV``. For C (lessons TE-05) a compiler alone says too little: headers and libraries come
from packages. The identity is: per compiler found its version line, target and the hash of the program behind the
name, and one digest over the packages that own headers, libraries, the linker and the assembler, and one over what
lies below /usr/local without a package.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import shutil
import subprocess
from typing import Any, Dict, List, Optional, Sequence, Tuple

COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "clang++")

ASK_S = 20.0

_DPKG = "/var/lib/dpkg/status"
_C_PACKAGE = re.compile(
    r"(?:.*-dev|libc6.*|libc-bin|gcc.*|g\+\+.*|cpp.*|clang.*|llvm.*|libclang.*|libgcc.*|libstdc\+\+.*|binutils.*|"
    r"linux-libc-dev|musl.*|lld.*|mold|libgomp.*|libasan.*|libubsan.*|libtsan.*|liblsan.*|libitm.*|libquadmath.*)"
)

_LOCAL = ("/usr/local/include", "/usr/local/lib")
"""Where headers and libraries lie that no package owns; the compiler searches them first."""

_LIBRARY = re.compile(r".*\.(?:a|o|la|pc|cmake|so(?:\.[0-9.]+)?)")

_local: Dict[str, Tuple[int, int, str]] = {}

_packages: Dict[Tuple[str, int, int], str] = {}


def rust_identity(rustc: str) -> str:
    """``rustc -vV`` of the program *rustc*, or "" when it does not answer."""
    return _ask([rustc, "-vV"]).strip()


def go_identity(go: str) -> str:
    """``go version`` of the program *go* itself, whatever toolchain a go.mod might name; "" when it does not answer."""
    return _ask([go, "version"], {"GOTOOLCHAIN": "local"}).strip()


NODE_QUESTION = "process.version + ' ' + process.platform + ' ' + process.arch"


def node_identity(node: str) -> str:
    """Version, platform and processor of the program *node*; "" when it does not answer."""
    said = _ask([node, "-p", NODE_QUESTION]).strip()
    return "node " + said if said else ""


def rust_parts(sysroot: str) -> Dict[str, Any]:
    """``{"components", "targets"}`` of the toolchain below *sysroot*; targets: whose standard library is there.

    rustup and the installer keep the list of components; for a distribution's compiler they are told by its programs.
    """
    triples = os.path.join(sysroot, "lib", "rustlib")
    libraries = glob.glob(os.path.join(glob.escape(triples), "*", "lib", "libcore-*.rlib"))
    targets = sorted({path.split(os.sep)[-3] for path in libraries})
    try:
        with open(os.path.join(triples, "components"), encoding="utf-8") as file:
            found = {_without_target(line.strip(), targets) for line in file if line.strip()}
    except OSError:
        programs = (("rustc", "rustc"), ("cargo", "cargo"), ("clippy", "clippy-driver"), ("rustfmt", "rustfmt"))
        found = {part for part, name in programs if os.path.exists(os.path.join(sysroot, "bin", name))}
    return {"components": sorted(found), "targets": targets}


def rustup_name(sysroot: str) -> str:
    """The name by which rustup knows the toolchain below *sysroot*; "" if it is none of rustup's."""
    above, name = os.path.split(sysroot)
    return name if os.path.basename(above) == "toolchains" else ""


def _without_target(component: str, targets: Sequence[str]) -> str:
    """ "clippy-preview-x86_64-unknown-linux-gnu" is called clippy everywhere else."""
    for target in targets:
        if component.endswith("-" + target):
            return _without_target(component[: -len(target) - 1], ())
    return component.removesuffix("-preview")


def c_identity(path_env: str) -> Dict[str, Any]:
    """The C and C++ compilers on *path_env* as ``{"identity", "shown", "compilers"}``; {} when there is none."""
    rows: List[str] = []
    shown: List[str] = []
    names: List[str] = []
    for name in COMPILERS:
        found = shutil.which(name, path=path_env)
        if found is None:
            continue
        version = _ask([found, "--version"]).split("\n")[0].strip()
        target = _ask([found, "-dumpmachine"]).strip()
        if not version:
            continue
        names.append(name)
        real = os.path.realpath(found)
        rows.append("%s: %s | %s | %s" % (name, _without_name(version), target, _hash(real)))
        text = _without_name(version)
        text = "gcc " + text if text.startswith("(") else text  # clang's line names it
        if text not in shown:
            shown.append(text)
    if not rows:
        return {}
    rows.append("packages: %s %s" % (packages_digest(), local_digest()))
    return {"identity": "\n".join(rows), "shown": ", ".join(shown)[:200], "compilers": names}


def packages_digest() -> str:
    """One digest over names and versions of the packages that own headers, libraries and the binary tools.

    Read from dpkg's or rpm's own record; "unmanaged" where there is neither. Kept until that record changes.
    """
    try:
        status = os.stat(_DPKG)
    except OSError:
        said = _ask(["rpm", "-qa", "--qf", "%{NAME}\\t%{VERSION}-%{RELEASE}\\n"])
        listed = [tuple(line.split("\t", 1)) for line in said.splitlines() if "\t" in line]
        return _digest(sorted((n, v) for n, v in listed if _C_PACKAGE.fullmatch(n.replace("-devel", "-dev"))))
    key = (_DPKG, status.st_mtime_ns, status.st_size)
    if key not in _packages:
        _packages.clear()
        _packages[key] = _digest(sorted(_dpkg_packages()))
    return _packages[key]


def local_digest() -> str:
    """One digest over the headers and libraries below /usr/local: names and contents, read again when they change."""
    pairs: List[Tuple[str, str]] = []
    for top in _LOCAL:
        for directory, names, files in os.walk(top):
            names[:] = sorted(name for name in names if not name.startswith("python") and name != "node_modules")
            headers = top.endswith("include")
            pairs += [
                (path, _kept_hash(path))
                for path in (os.path.join(directory, name) for name in sorted(files))
                if headers or _LIBRARY.fullmatch(os.path.basename(path))
            ]
    return _digest(pairs) if pairs else "none"


def _kept_hash(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return "unreadable"
    known = _local.get(path)
    if known is None or known[:2] != (status.st_size, status.st_mtime_ns):
        known = _local[path] = (status.st_size, status.st_mtime_ns, _hash(path))
    return known[2]


def _dpkg_packages() -> List[Tuple[str, str]]:
    found: List[Tuple[str, str]] = []
    name = version = ""
    installed = False
    with open(_DPKG, encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("Package: "):
                name = line[9:].strip()
            elif line.startswith("Version: "):
                version = line[9:].strip()
            elif line.startswith("Status: "):
                installed = line.strip() == "Status: install ok installed"
            elif line == "\n":
                if installed and _C_PACKAGE.fullmatch(name):
                    found.append((name, version))
                name, version, installed = "", "", False
    if installed and _C_PACKAGE.fullmatch(name):
        found.append((name, version))
    return found


def _digest(pairs: Sequence[Tuple[str, ...]]) -> str:
    if not pairs:
        return "unmanaged"
    text = "\n".join("\t".join(pair) for pair in pairs)
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).hexdigest()


def _without_name(version: str) -> str:
    """ "gcc (Debian 12.2.0-14) 12.2.0" begins with the name it was called by; the rest is who it is."""
    return re.sub(r"^\S+\s+(?=\()", "", version)


def _hash(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.blake2b(file.read(), digest_size=16).hexdigest()
    except OSError:
        return "unreadable"


def _ask(command: Sequence[str], more: Optional[Dict[str, str]] = None) -> str:
    path, home = os.environ.get("PATH", "/usr/bin:/bin"), os.environ.get("HOME", "/")
    env = {"LC_ALL": "C", "PATH": path, "HOME": home, **(more or {})}
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=ASK_S,
            check=False,
            cwd="/",
            env=env,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""
