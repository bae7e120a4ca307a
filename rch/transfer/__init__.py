"""Manifest -> files there; Delta -> files here, verified.

The story, as ``offload.py`` tells it, per root (``state_dir`` is ``<state>``)::

    also = shared_tree_paths(state_dir, root)                   ignored files that an earlier job returned
    held = HeldIndex.load(state_dir, root.key, worker.name)     the worker's tree as last known; empty when new
    here = exists_here(root)
    plan = plan_push(manifest, root, held, here)                pure
    check_size(plan, limit_bytes, root)                         NotOffloadable("too-large")
    part, body = prepare_part(plan, manifest, root)             for the request ``prepare``; it carries the plan when
                                                                "changes" is in it
    pushed = push(executor, job, root, manifest, held, plan, part=part, answer=answer["roots"][root.key],
                  exists_here=here, looked=…, rescan=…)         -> Pushed; give its manifest and held to the return
    remember_push(state_dir, job, root, pushed.manifest, pushed.held)     while the job runs: for a crash, for rch fetch
    returned = return_delta(executor, job, root, pushed.manifest, pushed.held, state_dir=state_dir, scan=…,
                            policy=BuildDir.FULL, identity=…)   ProductsUnverified, DiskFull, HostileAnswer
    record_placed(returned.placement, root, pushed.manifest, tree=…, build=…)     spares the next scan the reading

At the start of rchd, before any job: ``roll_forward(state_dir)``.
"""

from rch.transfer.delivery import ask_delta, return_delta
from rch.transfer.held import HeldIndex, shared_tree_paths
from rch.transfer.model import (
    BuildDir,
    Conflict,
    ConflictKind,
    Delta,
    LocalBuild,
    Placed,
    Placement,
    Placing,
    Pushed,
    PushPlan,
    Removal,
    Returned,
    ReturnPlan,
    RolledForward,
    Stamp,
)
from rch.transfer.place import place
from rch.transfer.push import prepare_part, push
from rch.transfer.pushes import check_size, compression_level, exists_here, plan_push
from rch.transfer.recall import recall_push, record_placed, remember_push
from rch.transfer.recovery import roll_forward
from rch.transfer.returns import plan_return
from rch.transfer.snapshot import changed_since

__all__ = [
    "BuildDir",
    "Conflict",
    "ConflictKind",
    "Delta",
    "HeldIndex",
    "LocalBuild",
    "Placed",
    "Placement",
    "Placing",
    "PushPlan",
    "Pushed",
    "Removal",
    "ReturnPlan",
    "Returned",
    "RolledForward",
    "Stamp",
    "ask_delta",
    "changed_since",
    "check_size",
    "compression_level",
    "exists_here",
    "place",
    "plan_push",
    "plan_return",
    "prepare_part",
    "push",
    "recall_push",
    "record_placed",
    "remember_push",
    "return_delta",
    "roll_forward",
    "shared_tree_paths",
]
