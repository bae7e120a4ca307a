"""``python -m rch.worker.build OUT``: the rch-wkr zipapp, the same bytes from the same sources."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import zipfile

_TIME = (2000, 1, 1, 0, 0, 0)
_SHEBANG = b"#!/usr/bin/env python3\n"
_MAIN = b"from rch.worker.__main__ import main\n\nmain()\n"
_HERE = os.path.dirname(os.path.abspath(__file__))


def build(out: str) -> str:
    """Write the zipapp to *out* (replaced in one step, mode 0755); its sha256 in hex."""
    data = _SHEBANG + _archive()
    temporary = "%s.%d.tmp" % (out, os.getpid())
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o755)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    os.replace(temporary, out)
    return hashlib.sha256(data).hexdigest()


def _archive() -> bytes:
    """Stored files of fixed time and mode, sorted by name. ``rch/__init__.py`` gives the version, and stays out."""
    version = "0"
    with open(os.path.join(os.path.dirname(_HERE), "__init__.py"), encoding="utf-8") as file:
        for line in file:
            if line.startswith("__version__"):
                version = line.split('"')[1]
    files = {"__main__.py": _MAIN, "rch/__init__.py": b""}
    for name in sorted(os.listdir(_HERE)):
        if name.endswith(".py") and name != "build.py":
            with open(os.path.join(_HERE, name), "rb") as source:
                files["rch/worker/" + name] = source.read()
    files["rch/worker/_version.py"] = ('VERSION = "%s"\n' % version).encode("ascii")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            info = zipfile.ZipInfo(name, _TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            info.create_system = 3
            archive.writestr(info, content)
    return stream.getvalue()


if __name__ == "__main__":
    print(build(sys.argv[1]))
