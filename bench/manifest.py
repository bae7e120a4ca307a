"""How long it takes to know what would be sent: trees of 1,000, 10,000 and 50,000 files, unchanged and with one edit.

Run: python bench/manifest.py [--files 1000,10000,50000] [--rounds 5] [--json]
Budget (design, section 9): among 50,000 files nothing changed <= 0.5 s, one file <= 0.6 s, push included.
Every row stands beside two things measured in the same run: one walk with lstat, and `git status`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from rch.paths import AbsPath
from rch.project import ManifestRules, Root, git_overlay, stat_cache, take_manifest
from rch.toolchains import KINDS


def plant(top: str, files: int) -> None:
    for number in range(files):
        directory = os.path.join(top, f"part{number // 1000:02d}", f"mod{number // 100:04d}")
        if number % 100 == 0:
            os.makedirs(directory)
        with open(os.path.join(directory, f"file{number % 100:02d}.rs"), "w") as stream:
            stream.write(f"// {number}\n" + "fn f() {}\n" * 30)
    git = ["git", "-C", top, "-c", "user.name=b", "-c", "user.email=b@example.org"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], check=True)


def walk(top: str) -> int:
    count = 0
    for directory, _, names in os.walk(top):
        for name in names:
            os.lstat(os.path.join(directory, name))
            count += 1
    return count


def best(rounds: int, action: Callable[[], object], before: Callable[[], object] = lambda: None) -> tuple[float, float]:
    """(wall, CPU of this process) in seconds of the quickest of *rounds*."""
    wall, cpu = [], []
    for _ in range(rounds):
        before()
        started, used = time.perf_counter(), time.process_time()
        action()
        cpu.append(time.process_time() - used)
        wall.append(time.perf_counter() - started)
    return min(wall), min(cpu)


def measure(files: int, rounds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="rch-bench-") as directory:
        top, state = os.path.join(directory, "tree"), AbsPath(os.path.join(directory, "state"))
        os.mkdir(top)
        plant(top, files)
        root = Root(AbsPath(top), AbsPath(os.path.realpath(top)), "bench")
        kind, rules = KINDS["cargo.build"], ManifestRules()
        edited = os.path.join(top, "part00", "mod0000", "file07.rs")
        times = iter(range(1, 1000))

        def edit() -> None:
            with open(edited, "a") as stream:
                stream.write(f"// {next(times)}\n")

        def look(kind_name: str = "") -> None:
            cache = stat_cache(state, root.key)
            overlay = git_overlay(root, "head", state)
            take_manifest(root, KINDS[kind_name] if kind_name else kind, rules, cache, overlay=overlay)

        started = time.perf_counter()
        look()
        cold = time.perf_counter() - started
        time.sleep(0.1)
        look()
        unchanged, unchanged_cpu = best(rounds, look)
        one, one_cpu = best(rounds, look, edit)
        everything, _ = best(rounds, lambda: look("make"))
        walked, walked_cpu = best(rounds, lambda: walk(top))
        status, _ = best(
            rounds, lambda: subprocess.run(["git", "-C", top, "status", "-s"], check=True, capture_output=True)
        )
    return {
        "files": files,
        "cold_s": cold,
        "unchanged_s": unchanged,
        "unchanged_cpu_s": unchanged_cpu,
        "one_edit_s": one,
        "one_edit_cpu_s": one_cpu,
        "make_unchanged_s": everything,
        "walk_s": walked,
        "walk_cpu_s": walked_cpu,
        "git_status_s": status,
        "unchanged_over_walk": unchanged / walked,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", default="1000,10000,50000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [measure(int(files), options.rounds) for files in options.files.split(",")]
    if options.json:
        print(json.dumps(rows))
        return 0
    names = [name for name in rows[0] if name != "files"]
    print(f"{'files':>20} " + " ".join(f"{row['files']:>9}" for row in rows))
    for name in names:
        print(f"{name:>20} " + " ".join(f"{row[name]:>9.3f}" for row in rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
