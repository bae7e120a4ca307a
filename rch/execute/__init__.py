"""Lease, command -> Job, on an Executor: the one seam through which anything happens on a worker."""

from rch.execute.channel import Answer, Channel
from rch.execute.executor import Executor, Hello, Moved

__all__ = ["Answer", "Channel", "Executor", "Hello", "Moved"]
