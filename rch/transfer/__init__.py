"""Manifest -> files there; Delta -> files here, verified.

The story, as ``offload.py`` tells it, per root (all signatures are keyword-friendly; state_dir is ``<state>``)::

    also = shared_tree_paths(state_dir, root)                    ignored files that an earlier job returned: manifest them
    held = HeldIndex.load(state_dir, root.key, worker.name)      the worker's tree as last known; empty when new
    plan = plan_push(manifest, root, held, exists_here(root))    pure -> PushPlan
    check_size(plan, limit_bytes)                                NotOffloadable("too-large")
    part, body = prepare_part(plan, manifest, root, room=1 MiB)  goes into the request ``prepare``; "changes" in part
                                                                 says whether the plan went inline
    pushed = push(executor, job, root, manifest, held, part=part, answer=answer["roots"][root.key],
                  rescan=None | (lambda: Manifest))              -> Pushed (manifest, held as pushed, unstable)
      … the job runs; meanwhile scan the build directories: Mapping[path, Here] …
    returned = return_delta(executor, job, root, pushed.manifest, pushed.held, state_dir=state_dir,
                            scan=lambda: Mapping[path, Here], policy=BuildDir.FULL, extra_patterns=(),
                            machine=None | "x86_64")             -> Returned; raises ProductsUnverified, HostileAnswer, DiskFull
    roll_forward(state_dir)                                      at start of rchd -> list[RolledForward]
"""

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

__all__ = [
    "BuildDir",
    "Conflict",
    "ConflictKind",
    "Delta",
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
]
