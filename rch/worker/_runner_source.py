"""``_runner.py`` for PID 1, out of the zipapp or the source tree, compiled where that saves time."""

from __future__ import annotations

import os
import sys
from typing import Any, List

_compiled: List[bytes] = []


def program(python: str) -> bytes:
    """The bytes that the interpreter *python* executes: compiled for our own one, 2 of 11 ms of every job's start."""
    if os.path.realpath(python) != os.path.realpath(sys.executable):
        return read()
    if not _compiled:
        import importlib.util
        import marshal

        code = compile(read(), "_runner.py", "exec", dont_inherit=True)
        _compiled.append(importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code))
    return _compiled[0]


def read() -> bytes:
    """The source."""
    spec: Any = __spec__
    data: bytes = spec.loader.get_data(os.path.join(os.path.dirname(__file__), "_runner.py"))
    return data
