"""The ``mock`` executor: a worker in memory, deterministic, that can be told to misbehave.

It keeps the whole contract (``tests/contract`` runs over it as over ``ssh`` and ``local``): exit codes, signals, file
contents, offsets. Commands are programs of its own little shell (:mod:`rch.execute.mock.shell`), not processes.
"""

from rch.execute.mock.executor import FaultPlan, MockExecutor
from rch.execute.mock.worker import MockWorker

__all__ = ["FaultPlan", "MockExecutor", "MockWorker"]
