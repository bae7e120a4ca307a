"""The part of the configuration that decides, as the decision wants it."""

from __future__ import annotations

from rch.config.merged import Config
from rch.intercept.decision import Policy


def policy_of(config: Config) -> Policy:
    """The Policy of a command with this configuration."""
    return Policy(
        structure=config.interception.structure,
        confidence_threshold=config.interception.confidence_threshold,
        exclude=config.interception.exclude,
        toolchains=config.interception.toolchains.model_dump(),
        enabled=config.enabled,
        local_only=config.local_only,
        run_tests=config.execution.run_tests,
        full_return=config.artifacts.build_dir in ("auto", "full"),
    )
