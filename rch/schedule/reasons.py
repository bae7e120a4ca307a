"""The closed list of reasons why a command ran here. Standard library only, no imports of ours.

A reason line on stderr, a job, an event, a metric and ``rch explain`` all use these codes and no
others (lessons UX-01).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

REASONS: Mapping[str, str] = MappingProxyType(
    {
        # switches
        "disabled": "Interception is switched off: RCH_ENABLED=0, or enabled = false in a configuration file.",
        "bypass": "RCH_BYPASS=1 runs the real tool; nothing was read, contacted or logged.",
        "local-only": "RCH_LOCAL_ONLY=1 keeps every command here, under local slots.",
        "on-worker": "This already runs in a job on a worker, where rch does nothing.",
        # the decision
        "not-a-build": "No rule of a toolchain says that this command builds something.",
        "never-intercept": "A known tool, but this call changes, serves, watches or only tells something here.",
        "excluded": "A pattern of interception.exclude matches the command.",
        "toolchain-off": "interception.toolchains has this tool switched off, or it is off by default.",
        "structure": "The shell line does not say for certain which words are the build's, or cannot be parsed.",
        "wrapper": "The build stands behind a program that must see it here, such as sudo, strace or xargs.",
        "below-threshold": "The confidence of the match is below interception.confidence_threshold.",
        "unsupported-tool": "A build tool that rch knows by name and does not send out.",
        "output-outside-roots": "The command writes to a place outside the project, from where nothing returns.",
        # preflight
        "preflight-invalid-manifest": "The project's manifest cannot be read; the tool shows the real error here.",
        "preflight-missing-file": "A file that the command names does not exist; the tool shows the real error here.",
        "preflight-invalid-target": "A target that the command names does not exist; the tool shows the error here.",
        "preflight-syntax-error": "The quick local check found an error; the tool shows it here.",
        "preflight-missing-dependency": "A package that the command names does not exist; the tool shows it here.",
        # the project
        "no-project": "No project root was found for the directory and the kind of command.",
        "missing-input": "The command reads something here that cannot be sent along; the line names it.",
        "path-not-bindable": "The project lies under a system directory, which no job can replace.",
        "path-not-proved": "The caller did not prove that it may write the project.",
        "too-large": "What would have to be sent is over transfer.max_transfer_size_mb.",
        "unstable-snapshot": "The project kept changing while it was read.",
        "secret-found": "A file that would have to be sent holds a secret, or has a name that is never sent.",
        "unportable": "The same command was red on this class of worker and green here; it stays here.",
        "hook-failed": "The pre_transfer command of the configuration failed.",
        # the choice
        "too-quick": "The command is expected to end here before a worker could have started it.",
        "not-worth-it": "Transfer and queue would take longer than running here.",
        "no-candidate": "No worker is healthy, allowed and able; every worker has a reason of its own.",
        "no-workers": "The inventory has no workers.",
        "queue-timeout": "No worker had free slots within execution.queue_wait_sec.",
        "clock-skew": "The worker's clock is too far from this machine's to return files.",
        "toolchain-mismatch": "No worker has the identical compiler.",
        "capability-missing": "A program or an ability that the command needs is missing on the worker.",
        "disk-full": "The worker has too little free disk.",
        "unreachable": "The worker did not answer.",
        "system-mismatch": "The worker's operating system or processor is not this machine's.",
        "sandbox-missing": "The worker cannot isolate jobs, so nothing that returns files runs there.",
        # around it
        "no-daemon": "rchd does not run and could not be started.",
        "bad-config": "A configuration file has an error; nothing leaves the machine until it is mended.",
        "bad-environment": "An RCH_ variable has a value that cannot be used.",
        "interactive": "The command needs the terminal of the caller.",
        "worker-fault": "The worker or the network broke before the command had started.",
        "lost": "The job was lost on its worker, and the command may be run again.",
        "build-dir-conflict": "The build directory changed here while the job ran; the command is repeated here.",
        "oom": "The job ran out of memory on its worker, and the command may be run again.",
        "red-there": "The command failed on a class of worker where this project never built; it is repeated here.",
        "cancelled": "The caller left before the command had started on a worker.",
        "dry-run": "A dry run says what would happen and sends nothing.",
        "internal-error": "rch made a mistake; the log of rchd has the details.",
    }
)


def meaning(code: str) -> str:
    """One sentence about *code*. Raises KeyError for a code outside the list."""
    return REASONS[code]
