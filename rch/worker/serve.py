"""``rch-wkr serve``: answers requests on stdin/stdout, one thread per request, until stdin ends.

Locks and slots that no supervisor holds are this process's, so they are free the moment it is gone.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import traceback
from typing import Optional

from rch.worker._channel import ServerChannel
from rch.worker._start import Nursery
from rch.worker.cache import Cache
from rch.worker.operations import Operations
from rch.worker.protocol import Message, ProtocolError
from rch.worker.refusal import Refusal, refusal_of

_THREADS = 512
"""Requests under way at once; a long poll of every job of a big worker fits."""


def serve(cache: Cache, slots_total: Optional[int], *, confined: bool = False) -> int:
    """Serve until the peer goes away; the exit status. The caller ends the process without waiting for threads.

    confined: refuse jobs without a sandbox, so that the channel is no way to the account itself.
    """
    gc.set_threshold(200_000, 20, 20)  # an index is 10**5 tuples that hold no cycles: a third of its loading time
    nursery = Nursery()  # first of all: later there are threads, and a fork would copy their locks
    reader = os.fdopen(os.dup(0), "rb")
    writer = os.fdopen(os.dup(1), "wb")
    # The peer may have merged stderr into the channel: nothing but messages may be written from here on.
    quiet = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(quiet, descriptor)
    channel = ServerChannel(reader, writer)
    operations = Operations(cache, slots_total, channel, nursery, confined=confined)
    channel.introduce()
    complaints = os.open(os.path.join(cache.path, "serve.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if os.fstat(complaints).st_size > 1 << 20:
        os.ftruncate(complaints, 0)
    os.dup2(complaints, 2)
    room = threading.BoundedSemaphore(_THREADS)
    status = 0
    try:
        while True:
            message = channel.receive()
            if message is None:
                break
            room.acquire()
            threading.Thread(target=_answer, args=(channel, operations, message, room), daemon=True).start()
    except ProtocolError as error:
        sys.stderr.write("rch-wkr: %s\n" % error)
        status = 1
    operations.leave()
    return status


def _answer(channel: ServerChannel, operations: Operations, message: Message, room: threading.BoundedSemaphore) -> None:
    try:
        fields, body = _result(operations, message)
        channel.send(message.id, fields, body)
    except OSError:
        pass  # nobody listens; the reader will find the end
    finally:
        room.release()


def _result(operations: Operations, message: Message) -> "tuple[dict[str, object], bytes]":
    try:
        answer, body = operations.answer(message)
        return {"ok": True, **answer}, body
    except Refusal as refusal:
        return {"ok": False, "error": refusal.code, "message": refusal.message}, b""
    except OSError as error:
        known = refusal_of(error, str(message.fields.get("op"))[:40])
        _complain()
        return {"ok": False, "error": known.code, "message": known.message}, b""
    except Exception as error:  # noqa: BLE001  the outer edge: one broken request must not end the others
        _complain()
        text = "%s: %s" % (type(error).__name__, error)
        return {"ok": False, "error": "internal", "message": text[:500]}, b""


def _complain() -> None:
    """The traceback into ``serve.log``. A disk that is full must not cost the answer too."""
    with contextlib.suppress(OSError):
        traceback.print_exc()
