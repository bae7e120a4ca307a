"""Slots: one flocked file per CPU that this worker grants; whoever holds the descriptor holds the CPU.

The worker owns them (lessons SQ-01): any number of workstations, and of ``serve`` processes, share one directory, and a
process that dies gives its slots back by dying. ``<cache>/slots/total`` may hold a number; else each CPU is a slot.
"""

from __future__ import annotations

import os
import time
from typing import Dict, List, Optional

from rch.worker._locks import Queue, held_elsewhere, open_lock, try_lock
from rch.worker.refusal import Refusal

_PAUSE_S = 0.01
"""Only the head of the queue looks again; a slot is found free within this time (flock has no wait-for-any)."""


class Slots:
    """The slots of one cache directory. *total* overrides the file and the number of CPUs."""

    def __init__(self, directory: str, total: Optional[int] = None) -> None:
        self._directory = directory
        self._queue = Queue(directory)
        self.cpus = sorted(os.sched_getaffinity(0))
        self.total = total if total is not None else _declared(directory) or len(self.cpus)

    def cpu(self, slot: int) -> int:
        """The CPU of a slot: slot i is CPU i of those available; more slots than CPUs share them in turn."""
        return self.cpus[slot % len(self.cpus)]

    def take(self, count: int, deadline: float) -> Optional[Dict[int, int]]:
        """*count* slots as {number: descriptor}, in order of arrival; None at *deadline* (monotonic), and none is held.

        Raises Refusal when there are not that many slots at all.
        """
        if count > self.total:
            raise Refusal("bad-request", "%d slots asked for, this worker has %d" % (count, self.total))
        if count <= 0:
            return {}
        place = self._queue.enter(deadline)
        if place is None:
            return None
        held: Dict[int, int] = {}
        looks = 0
        try:
            while True:
                self._look(held, count)
                looks += 1
                if len(held) == count:
                    return held
                # A count by somebody's health request holds a lock for a moment: a single look may be wrong.
                if time.monotonic() >= deadline and looks >= 3:
                    free(held)
                    return None
                time.sleep(_PAUSE_S)
        except BaseException:
            free(held)
            raise
        finally:
            place.leave()

    def used(self) -> List[int]:
        """The slots that somebody holds now."""
        return [slot for slot in range(self.total) if held_elsewhere(self._path(slot))]

    def _look(self, held: Dict[int, int], count: int) -> None:
        for slot in range(self.total):
            if len(held) == count:
                return
            if slot in held:
                continue
            descriptor = open_lock(self._path(slot))
            if try_lock(descriptor):
                held[slot] = descriptor
            else:
                os.close(descriptor)

    def _path(self, slot: int) -> str:
        return os.path.join(self._directory, str(slot))


def free(held: Dict[int, int]) -> None:
    """Close the descriptors of :meth:`Slots.take`; those handed on elsewhere keep their lock."""
    while held:
        os.close(held.popitem()[1])


def _declared(directory: str) -> int:
    try:
        with open(os.path.join(directory, "total"), encoding="ascii") as file:
            return max(0, int(file.read().strip()))
    except (OSError, ValueError):
        return 0
