"""What a tool call costs an agent: hooks and shims as whole processes, beside the cheapest ones of this machine.

``python bench/hook_latency.py [ROUNDS]`` (default 500). The columns are interleaved round by round, so that a machine
that slows down slows all of them; read the ratios. "sh -c" in front of a hook is what every harness does. rchd is the
real one's HTTP side with the real decision behind it; "hung" accepts and never answers.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import structlog

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests" / "unit" / "agents"))

from conftest import Desk  # noqa: E402 - the hook's programs with an rchd, as its tests have them

from rch.agents.dialect import DIALECTS  # noqa: E402
from rch.agents.install import command_of  # noqa: E402
from rch.agents.trial import NO_BUILD, sample  # noqa: E402
from rch.shims.directory import install as install_shims  # noqa: E402
from rch.shims.program import Setting as ShimSetting  # noqa: E402

BUILD = "cd crate && cargo build 2>&1 | tail -5"


def spawn_ms(argv: list[str], env: dict[str, str], stdin: str = os.devnull) -> float:
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, stdin, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
    ]
    begun = time.perf_counter()
    pid = os.posix_spawn(argv[0], argv, env, file_actions=actions)
    os.waitpid(pid, 0)
    return (time.perf_counter() - begun) * 1000


def hung(path: str) -> socket.socket:
    """Somebody who accepts and says nothing."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    kept = []

    def accept() -> None:
        while True:
            try:
                kept.append(listener.accept())
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    return listener


def question(place: str, harness: str, command: str) -> str:
    path = os.path.join(place, f"{harness}-{abs(hash(command))}.json")
    Path(path).write_text(json.dumps(sample(harness, command, "/src/p")))
    return path


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="rch-b-"))
        desks = {}
        for kind in ("native", "sh"):
            os.mkdir(f"{place}/{kind[0]}")
            desks[kind] = Desk(f"{place}/{kind[0]}", kind)
            stack.enter_context(desks[kind].rchd())
        for name in ("down", "hung"):
            os.mkdir(f"{place}/{name}")
            desks[name] = Desk(f"{place}/{name}", "native")
            # Nobody to be started: this measures the hook, not the birth of rchd.
            Path(desks[name].setting.state, "session.json").write_text(
                json.dumps({"boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(), "mnt": "x"})
            )
        stack.callback(hung(desks["hung"].socket).close)
        shims = os.path.join(place, "shims")
        tools = os.path.join(place, "tools")
        os.mkdir(tools)
        for tool in ("cargo", "gcc", "make"):
            os.symlink("/bin/true", os.path.join(tools, tool))
        install_shims(shims, {"cargo": "cargo", "gcc": "cc", "make": "make"}, ShimSetting("/bin/true", "/bin/true"))
        env = {"PATH": f"{shims}:{tools}:/usr/bin:/bin", "HOME": place, "LANG": "C.UTF-8"}
        cases: dict[str, tuple[list[str], dict[str, str], str]] = {
            "/bin/true": (["/bin/true"], env, os.devnull),
            "sh -c :": (["/bin/sh", "-c", ":"], env, os.devnull),
            "python3 -I -S -c pass": ([sys.executable, "-I", "-S", "-c", "pass"], env, os.devnull),
            "shim, cargo fmt (the tool is true)": ([f"{shims}/cargo", "fmt"], env, os.devnull),
            "shim, gcc --version": ([f"{shims}/gcc", "--version"], env, os.devnull),
            "shim, cargo build (the client is true)": ([f"{shims}/cargo", "build"], env, os.devnull),
        }
        for kind in ("native", "sh"):
            for harness in DIALECTS if kind == "native" else ("claude",):
                desk = desks[kind]
                words = ["/bin/sh", "-c", command_of(harness, desk.setting)]
                for what, line in (("no build", NO_BUILD), ("build", BUILD)):
                    cases[f"{kind} hook, {harness}, {what}"] = (words, desk.env, question(place, harness, line))
        bare = [desks["native"].setting.hook, "claude"]
        cases["native hook without sh -c, build"] = (bare, desks["native"].env, question(place, "claude", BUILD))
        for name in ("down", "hung"):
            words = ["/bin/sh", "-c", command_of("claude", desks[name].setting)]
            for what, line in (("no build", NO_BUILD), ("build", BUILD)):
                cases[f"native hook, claude, {what}, rchd {name}"] = (
                    words, desks[name].env, question(place, "claude", line),
                )  # fmt: skip
        times: dict[str, list[float]] = {name: [] for name in cases}
        for number in range(rounds + 3):
            for name, (argv, environ, stdin) in cases.items():
                slow = name.endswith(("build, rchd hung", "build, rchd down")) and "no build" not in name
                if slow and number % 25:
                    continue
                took = spawn_ms(argv, environ, stdin)
                if number >= 3:  # the first ones warm the caches
                    times[name].append(took)
        time.sleep(1)  # whoever would have started rchd ends before its directory does
    least = statistics.median(times["/bin/true"])
    print(f"{rounds} rounds, load {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs")
    print(f"{'ms, whole process':<44} {'p10':>7} {'p50':>7} {'p95':>7} {'p99':>7} {'x true':>7}")
    for name, values in times.items():
        cuts = statistics.quantiles(values, n=100)
        print(f"{name:<44} {cuts[9]:>7.2f} {cuts[49]:>7.2f} {cuts[94]:>7.2f} {cuts[98]:>7.2f} {cuts[49] / least:>7.2f}")


if __name__ == "__main__":
    main()
