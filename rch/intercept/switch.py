"""The RCH_ variables that settle a command before any rule does, in their order (coverage A-6, A-7). Pure."""

from __future__ import annotations

from collections.abc import Mapping

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
SWITCHES = ("RCH_ON_WORKER", "RCH_BYPASS", "RCH_ENABLED", "RCH_LOCAL_ONLY")


def local_reason(env: Mapping[str, str], *, enabled: bool = True, local_only: bool = False) -> str:
    """The reason code that the switches in *env* give, "" when they leave the decision to the rules.

    ``bad-environment`` for a value that is neither on nor off. *enabled* and *local_only* are the
    configuration's.
    """
    for name, code in (("RCH_ON_WORKER", "on-worker"), ("RCH_BYPASS", "bypass")):
        value = _switch(env.get(name, ""))
        if value is None:
            return "bad-environment"
        if value:
            return code
    on = env.get("RCH_ENABLED", "")
    value = _switch(on)
    if value is None:
        return "bad-environment"
    if not (value if on else enabled):
        return "disabled"
    value = _switch(env.get("RCH_LOCAL_ONLY", ""))
    if value is None:
        return "bad-environment"
    return "local-only" if value or local_only else ""


def _switch(text: str) -> bool | None:
    """On, off (also unset and empty), or None for another word."""
    lowered = text.strip().lower()
    if lowered in _TRUE:
        return True
    return False if not lowered or lowered in _FALSE else None
