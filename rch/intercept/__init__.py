"""command text or argv, cwd, policy -> Decision. Pure; imports no I/O.

Names are loaded when first used: judging an argv needs the standard library alone, a whole line the shell's grammar.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rch.intercept.argv import classify_argv as classify_argv
    from rch.intercept.explain import explain_json as explain_json
    from rch.intercept.explain import explain_text as explain_text
    from rch.intercept.line import decide as decide

_HOMES = {
    "classify_argv": "rch.intercept.argv",
    "decide": "rch.intercept.line",
    "explain_json": "rch.intercept.explain",
    "explain_text": "rch.intercept.explain",
}

__all__ = ["classify_argv", "decide", "explain_json", "explain_text"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
