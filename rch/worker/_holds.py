"""What one ``serve`` process holds for jobs that are being prepared or read: locks of roots, CPU slots.

The end of the process gives all of it back, so a connection that breaks leaves nothing held.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Dict, List, Optional, Sequence

from rch.worker._jobdir import JobDir
from rch.worker._locks import locked_within
from rch.worker.cache import Cache
from rch.worker.refusal import Refusal
from rch.worker.roots import Root
from rch.worker.slots import Slots, free


class Hold:
    """What this process holds for one job: descriptors of root locks and slots. Guarded by its own lock."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.dropped = False
        self.roots: Dict[str, int] = {}
        self.slots: Dict[int, int] = {}
        self.granted: Optional[List[int]] = None

    def let_go(self) -> None:
        free(self.slots)
        for descriptor in self.roots.values():
            os.close(descriptor)
        self.roots.clear()
        self.granted = None


class Holds:
    """All holds of one process, by job."""

    def __init__(self, cache: Cache, slots: Slots) -> None:
        self._cache = cache
        self._slots = slots
        self._holds: Dict[str, Hold] = {}
        self._lock = threading.Lock()

    def leave(self) -> None:
        """Give everything back."""
        for hold in list(self._holds.values()):
            hold.let_go()

    def of(self, job: str) -> Hold:
        """The hold of *job*, an empty one at first."""
        with self._lock:
            return self._holds.setdefault(job, Hold())

    def take_roots(self, hold: Hold, keys: Sequence[str], deadline: float) -> None:
        """The locks of all roots, in the order of their keys so that two jobs cannot wait for each other."""
        taken: Dict[str, int] = {}
        for key in sorted(set(keys) - set(hold.roots)):
            root = Root(self._cache, key)
            root.create()
            descriptor = locked_within(root.lock, deadline)
            if descriptor is None:
                for other in taken.values():
                    os.close(other)
                raise Refusal("busy", "root %s is in use" % key)
            taken[key] = descriptor
        hold.roots.update(taken)

    def take_slots(self, job: str, hold: Hold, count: int, deadline: float) -> None:
        """*count* slots, once; raises Refusal ``busy`` with nothing kept."""
        if hold.granted is not None:
            return
        try:
            found = self._slots.take(count, deadline)
        except BaseException:
            self.drop(job)
            raise
        if found is None:
            self.drop(job)
            raise Refusal("busy", "no %d of %d slots became free in time" % (count, self._slots.total))
        hold.slots = found
        hold.granted = sorted(found)

    def drop(self, job: str) -> None:
        """Give back what *job* holds."""
        with self._lock:
            hold = self._holds.pop(job, None)
        if hold is None:
            return
        hold.dropped = True
        if hold.lock.acquire(blocking=False):  # else its own request is still waiting, and sees the mark
            try:
                hold.let_go()
            finally:
                hold.lock.release()

    def still_wanted(self, job: str, hold: Hold) -> None:
        """Raises Refusal when *job* was released while its request waited."""
        if hold.dropped:
            hold.let_go()
            raise Refusal("busy", "job %s was released meanwhile" % job)

    def root(self, job: str, key: str) -> Root:
        """A root whose lock is held for *job*; taken again when the ``serve`` that had it is gone."""
        root = Root(self._cache, key)
        if not root.exists():
            raise Refusal("no-such-root", "there is no root %s" % root.key)
        hold = self.of(job)
        with hold.lock:
            if root.key not in hold.roots:
                places = JobDir(self._cache.job(job)).spec().get("roots")
                keys = [p.get("key") for p in places if isinstance(p, dict)] if isinstance(places, list) else []
                if root.key not in keys:
                    raise Refusal("bad-request", "job %s does not hold root %s" % (job, root.key))
                self.take_roots(hold, [root.key], time.monotonic() + 2.0)
        return root
