"""``rch-wkr bench``: measure this machine while it is idle. A job that comes has the right of way.

The measurement is a process of its own, so that it can be ended at once and never holds up ``serve``. It takes no
slot: whoever wants to start a job finds all of them free, and the measurement is over before its first file is there.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from typing import Any, Dict, Mapping, Optional

from rch.worker import speed
from rch.worker._locks import open_lock, try_lock
from rch.worker.cache import Cache, own_command
from rch.worker.refusal import Refusal
from rch.worker.slots import Slots

LIMIT_S = 120.0
"""A measurement takes some eight seconds; a machine that needs longer than this has something better to do."""

_LOOK_S = 0.03


def bench(
    cache: Cache,
    slots: Slots,
    machine: Mapping[str, Any],
    *,
    keep: bool = False,
    max_age_s: float = 0.0,
    given: Optional[float] = None,
) -> Dict[str, Any]:
    """The score and what it was made from; see :mod:`rch.worker.speed`.

    keep: write it down as this worker's score. max_age_s: a kept score no older than this is the answer, unmeasured.
    given: a score that somebody else measured (cloud_benchmarker).
    ``measured`` tells whether this call did. Raises Refusal ``busy`` when a job runs here or another measurement does.
    """
    before = speed.kept(cache, machine)
    if before is not None and given is None and max_age_s > 0 and speed.holds(before, max_age_s):
        return {**before, "measured": False}
    if given is not None:
        found: Dict[str, Any] = {"speed_score": round(given, 1), "method": "cloud_benchmarker"}
    else:
        found = _measured(cache, slots)
        same_kind = before is not None and before.get("method") == found["method"]
        if keep and before is not None and same_kind and not speed.confirms(before, found):
            # A rested machine is faster for a while, a neighbour makes it slower: a change has to show twice.
            again = _measured(cache, slots)
            found = min(found, again, key=lambda one: abs(float(one["speed_score"]) - before["speed_score"]))
    found["formula"] = speed.METHODS[found["method"]]
    if keep:
        found = speed.keep(cache, machine, found)
    return {**found, "measured": given is None}


def _measured(cache: Cache, slots: Slots) -> Dict[str, Any]:
    rates = _measure(cache, slots)
    return {**speed.score(rates), "rates": rates}


def _measure(cache: Cache, slots: Slots) -> Dict[str, Any]:
    lock = open_lock(os.path.join(cache.path, "bench.lock"))
    try:
        if not try_lock(lock):
            raise Refusal("busy", "another measurement is under way")
        if _taken(slots):
            raise Refusal("busy", "a job is running")
        place = tempfile.mkdtemp(prefix="bench-", dir=cache.path)
        try:
            return _watch(place, slots)
        finally:
            shutil.rmtree(place, ignore_errors=True)
    finally:
        os.close(lock)


def _watch(place: str, slots: Slots) -> Dict[str, Any]:
    """Run the measurement, end it when a slot is taken or the time is up."""
    output = os.path.join(place, "rates")
    with open(output, "wb") as file:
        process = subprocess.Popen(
            [*own_command(), "measure", place],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # the compiler's processes end with it
            cwd="/",
        )
    started = time.monotonic()
    why = ""
    try:
        while process.poll() is None and not why:
            time.sleep(_LOOK_S)
            if time.monotonic() - started > LIMIT_S:
                why = "it took longer than %d s" % LIMIT_S
            elif _taken(slots):
                why = "a job came"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if why:
        raise Refusal("busy", "the measurement was given up: %s" % why)
    try:
        with open(output, "rb") as file:
            rates = json.loads(file.read().decode("ascii"))
    except (OSError, ValueError) as error:
        raise Refusal("internal", "the measurement ended with status %d" % process.returncode) from error
    return dict(rates)


def _taken(slots: Slots) -> bool:
    """True if a job holds a slot. A single look may meet somebody who only counts them; two in a row do not."""
    if not slots.used():
        return False
    time.sleep(_LOOK_S)
    return bool(slots.used())
