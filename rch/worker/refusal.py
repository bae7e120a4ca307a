"""What a request fails with: a code of the protocol's closed list and one line for a person."""

from __future__ import annotations

import errno

from rch.worker.protocol import ERROR_CODES


class Refusal(Exception):
    """The answer ``{"ok": false, "error": code, "message": message}``."""

    def __init__(self, code: str, message: str) -> None:
        assert code in ERROR_CODES, code
        super().__init__(message)
        self.code = code
        self.message = message


def refusal_of(error: OSError, doing: str) -> Refusal:
    """The refusal that an OSError amounts to; a full disk or quota is told apart (checklists of the scheduler)."""
    code = "disk-full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "internal"
    return Refusal(code, "%s: %s" % (doing, error.strerror or error))
