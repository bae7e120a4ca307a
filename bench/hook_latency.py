"""What a tool call costs an agent: hooks and shims as whole processes, beside the cheapest ones of this machine.

``python bench/hook_latency.py [ROUNDS]`` (default 500). The columns are interleaved round by round, so that a machine
that slows down slows all of them; read the ratios. "sh -c" in front of a hook is what every harness does. rchd is the
real one's HTTP side with the real decision behind it; "hung" accepts and never answers. Behind the shims of a build is
the real client, which an rchd tells to run the tool (true) here: up is a whole conversation, down is a run without one.
Whoever hangs costs the whole time limit each time, so those rows have 25 times fewer runs.
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
sys.path[:0] = [str(ROOT / "tests" / "unit" / "agents"), str(ROOT / "tests" / "unit" / "client")]

from conftest import Desk  # noqa: E402 - the hook's programs with an rchd, as its tests have them
from fake_rchd import FakeRchd, Peer  # noqa: E402

from rch.agents.dialect import DIALECTS  # noqa: E402
from rch.agents.install import command_of  # noqa: E402
from rch.agents.trial import NO_BUILD, sample  # noqa: E402
from rch.daemon.wire import Frame  # noqa: E402
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


def run_it_here(peer: Peer) -> None:
    """An rchd with a reason why the build does not go out."""
    peer.say(Frame.LOCAL, code="no-workers", reason="none", hint="", slots=1, env={}, hooks={}, quiet=True)
    peer.rest()


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
        real = {}
        for name in ("up", "down", "hung"):
            real[name] = os.path.join(place, f"shims-{name}")
            state = desks[name].setting.state if name in desks else f"{place}/s"
            setting = ShimSetting(sys.executable, str(ROOT / "rch" / "client.py"), state)
            install_shims(real[name], {"cargo": "cargo"}, setting)
        os.makedirs(f"{place}/s/run", mode=0o700)
        stack.enter_context(FakeRchd(f"{place}/s", run_it_here))
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
            for harness in DIALECTS:
                words = ["/bin/sh", "-c", command_of(harness, desks[name].setting)]
                for what, line in (("no build", NO_BUILD), ("build", BUILD)):
                    cases[f"native hook, {harness}, {what}, rchd {name}"] = (
                        words, desks[name].env, question(place, harness, line),
                    )  # fmt: skip
        for name, where in real.items():
            there = {**env, "PATH": f"{where}:{tools}:/usr/bin:/bin"}
            cases[f"shim, cargo fmt, rchd {name}"] = ([f"{where}/cargo", "fmt"], there, os.devnull)
            cases[f"shim, cargo build, rchd {name}"] = ([f"{where}/cargo", "build"], there, os.devnull)
        times: dict[str, list[float]] = {name: [] for name in cases}
        for number in range(rounds + 3):
            for name, (argv, environ, stdin) in cases.items():
                slow = name.endswith(" build, rchd hung") and "no build" not in name
                if slow and number % 25:
                    continue
                took = spawn_ms(argv, environ, stdin)
                if "hook" in name and name.endswith(" build, rchd down"):
                    time.sleep(0.05)  # the hook has left somebody behind who looks whether rchd may be started
                if number >= 3:  # the first ones warm the caches
                    times[name].append(took)
        time.sleep(1)  # whoever would have started rchd ends before its directory does
    least = statistics.median(times["/bin/true"])
    print(f"{rounds} rounds, load {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs")
    print(f"{'ms, whole process':<44} {'p10':>7} {'p50':>7} {'p95':>7} {'p99':>7} {'x true':>7}")
    for name, values in times.items():
        cuts = statistics.quantiles(values * 2 if len(values) < 2 else values, n=100)
        print(f"{name:<44} {cuts[9]:>7.2f} {cuts[49]:>7.2f} {cuts[94]:>7.2f} {cuts[98]:>7.2f} {cuts[49] / least:>7.2f}")


if __name__ == "__main__":
    main()
