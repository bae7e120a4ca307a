"""``POST /hook/{agent}`` and ``POST /v1/decide``: rchd's side of the agents' hooks."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import structlog

from rch.agents.answer import answer, path_has_shims
from rch.agents.caller import VARIABLES, Caller, ancestors, variables_of, words_of
from rch.agents.dialect import Question, no_opinion
from rch.agents.document import Unreadable, read_toml
from rch.client_paths import SHIM_MARK
from rch.config import load_config
from rch.config.places import Places
from rch.config.policy import policy_of
from rch.errors import RchError, UsageError
from rch.intercept import classify_argv, explain_json
from rch.intercept.decision import Policy
from rch.intercept.line import PREFIX
from rch.project import cargo_aliases

_log = structlog.get_logger("hooks")

_SESSION = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")


class Hooks:
    """Answers questions of hooks; may be called from several threads."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def answer(self, agent: str, data: bytes, told: str, pid: int) -> bytes:
        """What the hook of *agent* prints. Never raises.

        told: the header X-Rch-Env of the hook. pid: the process that asks, 0 where it is not known.
        """
        return self._answer(agent, data, lambda: Caller(environment(told), ancestors(pid) if pid > 0 else ()))

    def answer_process(self, agent: str, data: bytes, pid: int) -> bytes:
        """The same for an agent that asks by itself, without a hook process: *pid* is the agent. Never raises."""
        return self._answer(
            agent, data, lambda: Caller(variables_of(pid), (words_of(pid), *ancestors(pid))) if pid > 0 else Caller()
        )

    def _answer(self, agent: str, data: bytes, who: Callable[[], Caller]) -> bytes:
        try:
            caller = who()
            found = answer(
                data,
                agent,
                caller,
                policy_of=self._policy,
                prefix=self.prefix(),
                has_shims=self._has_shims,
                aliases=lambda cwd: cargo_aliases(cwd, caller.env),
            )
        except RchError as error:
            _log.info("hook left alone", agent=agent, why=error.one_line())
            return no_opinion(agent)
        except Exception:  # noqa: BLE001 - whatever it is, it must not reach the agent
            _log.exception("hook failed", agent=agent)
            return no_opinion(agent)
        _log.debug("hook", agent=agent, why=found.why, rewritten=bool(found.rewritten))
        return found.data

    def decide(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The object of ``rch explain --json`` for ``{"command" or "argv", "cwd", "env"}``. Raises UsageError."""
        command, argv = body.get("command"), body.get("argv")
        cwd, env = body.get("cwd", "/"), body.get("env", {})
        if not isinstance(cwd, str) or not cwd.startswith("/"):
            raise UsageError("cwd must be an absolute path", what="cwd")
        if not isinstance(env, dict) or not all(isinstance(v, str) for v in env.values()):
            raise UsageError("env must be an object of texts", what="env")
        policy = policy_of(load_config(cwd, {"HOME": self._places.home, **env}, state_dir=self._places.state))
        if isinstance(command, str):
            return explain_json(command, cwd, policy, env, aliases=lambda there: cargo_aliases(there, env))
        if isinstance(argv, list) and argv and all(isinstance(word, str) for word in argv):
            found = classify_argv(argv, cwd, policy, env=env, aliases=lambda there: cargo_aliases(there, env))
            return {
                "argv": argv,
                "decision": found.verdict.value,
                "kind": found.kind.name if found.kind else None,
                "confidence": found.confidence,
                "tier": found.tier,
                "reason": found.reason,
                "detail": found.detail,
            }
        raise UsageError("either command, a text, or argv, a list of texts, is needed", what="command")

    def prefix(self) -> str:
        """What goes before a build: the launcher that `rch hook install` made, else the rch beside this Python."""
        for place in (f"{self._places.state}/hooks/rch", os.path.join(os.path.dirname(sys.executable), "rch")):
            if os.access(place, os.X_OK):
                return f"{place} exec -- "
        return PREFIX

    def _policy(self, cwd: str, caller: Caller) -> Policy:
        return policy_of(load_config(cwd, caller.env, state_dir=self._places.state))

    def _has_shims(self, question: Question, caller: Caller) -> bool:
        """Will the agent's shell find the shims? As far as each harness lets that be known (agent by agent)."""
        if question.harness == "claude":
            mark = f"{self._places.state}/hooks/sessions/{question.session}"
            return bool(_SESSION.match(question.session)) and os.path.exists(mark)
        if question.harness == "codex":
            home = caller.env.get("CODEX_HOME") or caller.home + "/.codex"
            try:
                policy = read_toml(home + "/config.toml").get("shell_environment_policy", {})
                return path_has_shims(str(policy.get("set", {}).get("PATH", "")), SHIM_MARK)
            except (Unreadable, AttributeError):
                return False
        return path_has_shims(caller.env.get("PATH", ""), SHIM_MARK)


def environment(told: str) -> dict[str, str]:
    """What a hook told of its environment: known variables only."""
    pairs = parse_qsl(told, keep_blank_values=False, errors="surrogateescape", max_num_fields=100)
    return {name: value for name, value in pairs if name in VARIABLES}
