"""What xdist does with a group of tests whose process died: the test that ran is the failure, the others run elsewhere.

xdist 3.8 gives a dead process's groups back whole. The test that killed it would kill the next one too, and a process
whose new group has one test left, or none, never asks for more: it runs a test only when it knows what follows. The run
then waits for ever. Here the test that ran counts as done (xdist reports it as failed, by name), groups that are done
are not given back, and a new process starts with two groups, as the first ones do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override
from xdist.scheduler import LoadGroupScheduling

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController


class CrashProofScheduling(LoadGroupScheduling):  # type: ignore[misc]  # xdist is untyped
    @override
    def remove_node(self, node: WorkerController) -> str | None:
        groups = self.assigned_work[node]
        crashed = next((test for group in groups.values() for test, done in group.items() if not done), None)
        for name, group in list(groups.items()):
            if crashed in group:
                group[crashed] = True
            if all(group.values()):
                del groups[name]
        super().remove_node(node)
        return crashed

    @override
    def schedule(self) -> None:
        super().schedule()
        for node in self.nodes:
            self._reschedule(node)
