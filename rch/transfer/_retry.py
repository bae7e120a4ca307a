"""Three attempts, 1 s and 2 s apart (coverage A-25): for transfers only, never around the start of anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

ATTEMPTS = 3
FIRST_PAUSE_S = 1.0

Result = TypeVar("Result")


def with_retries(
    action: Callable[[], Result],
    worth: tuple[type[Exception], ...],
    pause: Callable[[float], None],
    *,
    sensible: Callable[[], bool] = lambda: True,
) -> Result:
    """*action*'s result; exceptions in *worth* are retried while that is *sensible*, the last one is raised.

    A loop of our own: the retry library in question is no dependency, and three turns are all there is.
    """
    for attempt in range(ATTEMPTS - 1):
        try:
            return action()
        except worth:
            if not sensible():
                raise
            pause(FIRST_PAUSE_S * 2**attempt)
    return action()
