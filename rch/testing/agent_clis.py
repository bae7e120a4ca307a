"""The real agent CLIs: installed once into the cache, started against a :class:`FakeModel` with a HOME of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rch.testing.fake_model import FakeModel
from rch.testing.lab import lock_directory

PINNED = {
    "claude": "@anthropic-ai/claude-code@2.1.329",
    "codex": "@openai/codex@0.169.0",
    "gemini": "@google/gemini-cli@0.61.0",
    "copilot": "@github/copilot@1.0.102",
    "opencode": "opencode-ai@1.18.33",
}
"""What the tests are written for; a newer one is another test run, not another pin by accident."""

CACHE = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), ".cache", "agents")

INSTALL_S = 600.0
RUN_S = 120.0


class NoClis(Exception):
    """The CLIs cannot be had here; the message says why."""


def install_clis(cache: str = CACHE) -> str:
    """Install the pinned CLIs below *cache* unless they are there; the directory with node_modules.

    Raises NoClis without node and npm, or when npm cannot reach its registry.
    """
    if not shutil.which("npm") or not shutil.which("node"):
        raise NoClis("the agents' CLIs need node 20 and npm")
    os.makedirs(cache, exist_ok=True)
    with lock_directory(cache, timeout_s=2 * INSTALL_S):  # processes of one test run come here together
        stamp = os.path.join(cache, "installed.json")
        wanted = json.dumps(sorted(PINNED.values()))
        if not (os.path.exists(stamp) and Path(stamp).read_text() == wanted):
            _npm_install(cache)
            Path(stamp).write_text(wanted)
    return cache


def _npm_install(cache: str) -> None:
    package = os.path.join(cache, "package.json")
    Path(package).write_text('{"private": true}\n')
    try:
        done = subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--no-save", "--prefix", cache, *sorted(PINNED.values())],
            capture_output=True, text=True, timeout=INSTALL_S, check=False, cwd=cache,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise NoClis(f"npm did not install the agents' CLIs within {INSTALL_S:g} s") from None
    if done.returncode:
        raise NoClis(f"npm cannot install the agents' CLIs: {done.stderr.strip()[-300:]}")


@dataclass
class Agent:
    """One CLI with a HOME and a project of its own. ``env`` is its whole environment besides the model's address."""

    name: str
    cache: str
    home: str
    project: str
    env: dict[str, str] = field(default_factory=dict)
    words: Sequence[str] = ()

    @property
    def program(self) -> list[str]:
        """The words that start it."""
        modules = os.path.join(self.cache, "node_modules")
        if self.name == "claude":
            return [f"{modules}/@anthropic-ai/claude-code-linux-x64/claude"]
        if self.name == "codex":
            found = sorted(Path(modules, "@openai", "codex-linux-x64", "vendor").glob("*/bin/codex"))
            return [str(found[0])]
        if self.name == "copilot":
            return [f"{modules}/@github/copilot-linux-x64/copilot"]
        if self.name == "opencode":
            return [f"{modules}/opencode-linux-x64-baseline/bin/opencode"]
        return [f"{modules}/.bin/gemini"]

    def run(self, model: FakeModel, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Let it play what *model* has. The result is not checked; raises TimeoutExpired."""
        self._configure(model)
        words = {
            "claude": ["-p", "build it", "--model", "claude-sonnet-4-5"],
            "codex": ["exec", "--skip-git-repo-check", "--dangerously-bypass-hook-trust"],
            "gemini": ["-p", "build it", "--skip-trust"],
            "copilot": ["-p", "build it", "--no-auto-update"],
            "opencode": ["run"],
        }[self.name]
        last = ["build it"] if self.name in ("codex", "opencode") else []
        return subprocess.run(
            [*self.program, *words, *self.words, *last],
            cwd=self.project, env={**self._environment(model), **self.env, **(env or {})},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=RUN_S, check=False,
        )  # fmt: skip

    def _environment(self, model: FakeModel) -> dict[str, str]:
        node = os.path.dirname(shutil.which("node") or "/usr/bin/node")
        path = "/usr/local/bin:/usr/bin:/bin"
        common = {
            "HOME": self.home,
            "TMPDIR": os.path.join(os.path.dirname(self.home), "tmp"),
            "LANG": "C.UTF-8",
            "SHELL": "/bin/bash",
            "PATH": path if node in path.split(":") else f"{path}:{node}",
        }
        os.makedirs(common["TMPDIR"], exist_ok=True)
        own = {
            "claude": {
                "ANTHROPIC_BASE_URL": model.url,
                "ANTHROPIC_API_KEY": "x",
                "DISABLE_TELEMETRY": "1",
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
                "DISABLE_AUTOUPDATER": "1",
                "IS_SANDBOX": "1",  # it refuses some modes to root otherwise
            },
            "codex": {"CODEX_HOME": os.path.join(self.home, ".codex"), "FAKE_KEY": "x"},
            "gemini": {"GEMINI_API_KEY": "x", "GOOGLE_GEMINI_BASE_URL": model.url},
            "copilot": {
                "COPILOT_HOME": os.path.join(self.home, ".copilot"),
                "COPILOT_OFFLINE": "true",
                "COPILOT_PROVIDER_TYPE": "openai",
                "COPILOT_PROVIDER_BASE_URL": f"{model.url}/v1",
                "COPILOT_PROVIDER_API_KEY": "x",
                "COPILOT_MODEL": "gpt-4",
            },
            "opencode": {"OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1"},
        }
        return {**common, **own[self.name]}

    def _configure(self, model: FakeModel) -> None:
        if self.name == "codex":
            provider = (
                f'model = "gpt-5"\nmodel_provider = "fake"\n\n[model_providers.fake]\nname = "fake"\n'
                f'base_url = "{model.url}/v1"\nwire_api = "responses"\nenv_key = "FAKE_KEY"\n'
                "request_max_retries = 0\nstream_max_retries = 0\nsupports_websockets = false\n"
            )
            path = Path(self.home, ".codex", "config.toml")
            path.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text() if path.exists() else ""
            if "[model_providers.fake]" not in text:
                path.write_text(provider + "\n" + text)
        elif self.name == "gemini":
            path = Path(self.home, ".gemini", "settings.json")
            path.parent.mkdir(parents=True, exist_ok=True)
            settings = json.loads(path.read_text()) if path.exists() else {}
            settings.setdefault("security", {"auth": {"selectedType": "gemini-api-key"}})
            path.write_text(json.dumps(settings))
        elif self.name == "opencode":
            path = Path(self.home, ".config", "opencode", "opencode.json")
            path.parent.mkdir(parents=True, exist_ok=True)
            settings = json.loads(path.read_text()) if path.exists() else {}
            address = {"baseURL": f"{model.url}/v1", "apiKey": "x"}
            fake = {
                "npm": "@ai-sdk/openai-compatible",
                "options": address,
                "models": {"m": {"name": "m", "tool_call": True}},
            }
            settings |= {"model": "fake/m", "small_model": "fake/m", "provider": {"fake": fake}}
            path.write_text(json.dumps(settings))
            # It would fetch a package for plugins, which ours does without, and wait for it at every first start.
            path.with_name("node_modules").mkdir(exist_ok=True)
            lock = {"packages": {"": {"dependencies": {"@opencode-ai/plugin": "*"}}}}
            path.with_name("package-lock.json").write_text(json.dumps(lock))
