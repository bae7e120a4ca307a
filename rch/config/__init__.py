"""Configuration: one closed schema, six layers, and the environment switches.

Names resolve late, so that a caller that needs :mod:`rch.config.switches` or :mod:`rch.config.places` alone (both
standard library only) does not pay for pydantic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rch.config.layers import Layer, Origin
    from rch.config.merged import Config, load_config
    from rch.config.places import Places, places
    from rch.config.switches import Switches, read_switches

__all__ = ["Config", "Layer", "Origin", "Places", "Switches", "load_config", "places", "read_switches"]

_HOMES = {
    "Config": "merged",
    "load_config": "merged",
    "Layer": "layers",
    "Origin": "layers",
    "Places": "places",
    "places": "places",
    "Switches": "switches",
    "read_switches": "switches",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(f"rch.config.{home}"), name)
    globals()[name] = found  # the module of the same name (rch.config.places) must not win after its import
    return found
