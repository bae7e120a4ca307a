"""The text of ``_runner.py``, out of the zipapp or the source tree."""

from __future__ import annotations

import os
from typing import Any


def read() -> bytes:
    """The bytes that PID 1 executes."""
    spec: Any = __spec__
    data: bytes = spec.loader.get_data(os.path.join(os.path.dirname(__file__), "_runner.py"))
    return data
