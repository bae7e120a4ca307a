"""What a warm command costs through rch, beside the two things one would do without it. Prints markdown tables.

Run: python bench/offload.py [--rounds 15] [--only c,rust,push] [--files 1000,10000,50000] [--long 3] [--lab DIR]

The columns of every row are taken in one run, interleaved round by round in turning order, so that load hits all alike:

ssh     the same command typed on the worker, over an OpenSSH master that is already open, in a directory there
script  ``rsync there; ssh; rsync back`` over the same master, from a directory here
rch     ``rch exec`` in a directory here; rchd runs and the worker's tree is warm

Read the differences and ratios; the absolute times are this machine's, and "least" is what is left of them when nothing
else runs. The embedded worker shares the machine: its
CPUs and its disk are the same ones, and the network costs nothing. Round trips and bytes are counters, not times.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from rch.cli.api import Api  # noqa: E402
from rch.testing.lab import LAB_ROOT, EmbeddedLab, drop_lab_root, remove_tree, stop_daemons  # noqa: E402
from rch.testing.lab_provision import program  # noqa: E402

WARM = 3
"""Rounds before the first that counts."""

COLUMNS = ("ssh", "script", "rch")


class Bench:
    """One lab, one rchd, one OpenSSH master, and a directory for the trees."""

    def __init__(self, lab: EmbeddedLab, place: str) -> None:
        self.worker = lab.worker
        self.place = place
        self.state = os.path.join(place, "state")
        self.here, self.there = os.path.join(place, "here"), os.path.join(place, "there")
        for directory in (self.state, self.here, self.there, os.path.join(place, "config")):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        shutil.copytree(os.path.join(lab.state_dir, "facts"), os.path.join(self.state, "facts"), dirs_exist_ok=True)
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RCH_")},
            **lab.environment(self.state),
            "XDG_CONFIG_HOME": os.path.join(place, "config"),
            "PATH": f"{os.path.dirname(program('rch'))}:{os.environ['PATH']}",
        }
        self.rch = [program("rch"), "exec", "--quiet", "--require-remote", "--"]
        options = [*self.worker.ssh_options(), "-o", f"ControlPath={place}/m"]
        self.ssh = ["ssh", *options, f"{self.worker.user}@{self.worker.host}"]
        self.remote_shell = shlex.join(["ssh", *options])
        self.address = f"{self.worker.user}@{self.worker.host}"
        self.master = subprocess.Popen(
            ["ssh", *options, "-M", "-N", self.address], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 15
        while not os.path.exists(f"{place}/m"):
            if time.monotonic() > deadline:
                sys.exit("the OpenSSH master does not come up")
            time.sleep(0.05)

    def close(self) -> None:
        self.master.terminate()
        self.master.wait(10)
        subprocess.run([program("rch"), "daemon", "stop"], env=self.env, capture_output=True, timeout=30, check=False)
        stop_daemons(self.place)

    # -- the three ways -----------------------------------------------------------------------------------------

    def run(self, argv: list[str], cwd: str | None = None) -> float:
        """Seconds of one whole process; anything but success ends the bench."""
        begun = time.perf_counter()
        done = subprocess.run(
            argv, cwd=cwd, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=600, check=False
        )
        took = time.perf_counter() - begun
        if done.returncode:
            sys.exit(f"{argv[:6]} ended with {done.returncode}: {(done.stdout + done.stderr).decode()[-2000:]}")
        return took

    def on_worker(self, directory: str, command: list[str]) -> list[str]:
        path = shlex.quote(self.env["PATH"])
        return [*self.ssh, f"cd {shlex.quote(directory)} && PATH={path} {shlex.join(command)}"]

    def script(self, here: str, there: str, command: list[str]) -> list[str]:
        rsync = f"rsync -a --delete -e {shlex.quote(self.remote_shell)}"
        remote = shlex.quote(f"{self.address}:{there}/")
        local = shlex.quote(here + "/")
        ssh = shlex.join(self.on_worker(there, command))
        return ["sh", "-e", "-c", f"{rsync} {local} {remote}\n{ssh}\n{rsync} {remote} {local}"]

    def traffic(self) -> dict[str, int]:
        """Counters of rchd's control channel to the worker since it is open."""
        (row,) = self.api().get("workers")
        return dict(row["traffic"])

    def last_job(self) -> dict[str, Any]:
        job: dict[str, Any] = self.api().get("jobs", limit=1)[0]
        return job

    def api(self) -> Api:
        return Api(os.path.join(self.state, "run", "rchd.sock"))


class Scenario:
    """One command on one tree, three times over: a copy for each column."""

    def __init__(
        self, bench: Bench, name: str, tree: str, command: list[str], edit: Callable[[str, int], None] | None = None
    ) -> None:
        self.bench, self.name, self.command, self.edit = bench, name, command, edit
        base = os.path.basename(tree)
        self.dirs = {
            "ssh": os.path.join(bench.there, base + "-ssh"),
            "script": os.path.join(bench.here, base + "-script"),
            "rch": os.path.join(bench.here, base + "-rch"),
        }
        self.mirror = os.path.join(bench.there, base + "-script")
        for directory in self.dirs.values():
            if not os.path.exists(directory):
                shutil.copytree(tree, directory, symlinks=True)
        self.times: dict[str, list[float]] = {column: [] for column in COLUMNS}
        self.jobs: list[dict[str, Any]] = []
        self.counters: list[dict[str, int]] = []

    def round(self, number: int, *, counts: bool) -> None:
        turn = number % len(COLUMNS)
        for column in COLUMNS[turn:] + COLUMNS[:turn]:
            directory = self.dirs[column]
            if self.edit is not None:
                self.edit(directory, number)
            if column == "ssh":
                took = self.bench.run(self.bench.on_worker(directory, self.command))
            elif column == "script":
                took = self.bench.run(self.bench.script(directory, self.mirror, self.command))
            else:
                before = self.bench.traffic() if number else {}
                took = self.bench.run([*self.bench.rch, *self.command], directory)
                if counts:
                    job = self.settled()
                    after = self.bench.traffic()
                    self.jobs.append(job)
                    self.counters.append({key: after[key] - before[key] for key in after})
            if counts:
                self.times[column].append(took)

    def settled(self) -> dict[str, Any]:
        """The job just run, after rchd has given back its locks there (which the caller does not wait for)."""
        job = self.bench.last_job()
        if job["worker"] != self.bench.worker.name or job["state"] != "done":
            sys.exit(f"{self.name}: this was to run on the worker: {job}")
        time.sleep(0.25)
        return job

    def row(self) -> dict[str, Any]:
        middle = {column: statistics.median(values) for column, values in self.times.items()}
        over = [r - s for r, s in zip(self.times["rch"], self.times["ssh"], strict=True)]
        steps = {
            "before push": [job["times"]["created"] - job["times"]["received"] for job in self.jobs],
            "push and start": [job["times"]["pushed_s"] for job in self.jobs],
            "command": [job["times"]["ran_s"] for job in self.jobs],
            "return": [job["times"]["returned_s"] for job in self.jobs],
        }
        return {
            "name": self.name,
            **{f"{column}_p50": middle[column] for column in COLUMNS},
            **{f"{column}_p95": quantile(self.times[column], 0.95) for column in COLUMNS},
            **{f"{column}_least": min(self.times[column]) for column in COLUMNS},
            "over_ssh": statistics.median(over),
            "over_ssh_least": min(self.times["rch"]) - min(self.times["ssh"]),
            "ratio_ssh": middle["rch"] / middle["ssh"],
            "ratio_script": middle["rch"] / middle["script"],
            # A ping of the watch (every 5 s) may fall into a round: the least is what the command needs.
            "requests": min(c["requests"] for c in self.counters),
            "up_bytes": min(c["sent_bytes"] for c in self.counters),
            "down_bytes": min(c["received_bytes"] for c in self.counters),
            "pushed": self.jobs[-1]["pushed"],
            "returned": self.jobs[-1]["returned"],
            "steps": {name: statistics.median(values) for name, values in steps.items()},
        }


def quantile(values: list[float], share: float) -> float:
    if len(values) < 2:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]


# -- trees --------------------------------------------------------------------------------------------------------


def git(top: str) -> None:
    with open(os.path.join(top, ".gitignore"), "w") as file:
        file.write("*.o\n/app\n/target\n")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        command = ["git", "-C", top, "-c", "user.name=b", "-c", "user.email=b@example.org"]
        command += ["-c", "gc.auto=0", *words]  # no repack behind our back
        subprocess.run(command, check=True, capture_output=True)


def plant_c(top: str, files: int, heavy: int = 0) -> None:
    """*files* sources and a Makefile; heavy: functions of the source that is edited, 3 to 4 ms of compiling each."""
    os.makedirs(top)
    for number in range(files):
        with open(os.path.join(top, f"part{number:03d}.c"), "w") as file:
            file.write(f"int part{number:03d}(int x) {{ return x * {number} + 1; }}\n")
    with open(os.path.join(top, "main.c"), "w") as file:
        file.write("#define ROUND 0\n#include <stdio.h>\n")
        for number in range(heavy):
            file.write(
                f"static double f{number}(const double *a, int n) {{ double s = {number}; for (int i = 0; i < n; i++) "
                f"for (int j = 0; j < {number % 7 + 2}; j++) s += a[i + j] * {number % 13}.5 - s / (a[j] + 1); "
                "return s; }\n"
            )
        file.write("int main(void) { double t[99] = {ROUND}, s = 0;\n")
        file.writelines(f"s += f{number}(t, 9);\n" for number in range(heavy))
        file.write('printf("%d %f\\n", ROUND, s); return 0; }\n')
    with open(os.path.join(top, "Makefile"), "w") as file:
        file.write(
            f"CFLAGS = -O{2 if heavy else 1}\nOBJECTS := $(patsubst %.c,%.o,$(wildcard *.c))\n"
            "app: $(OBJECTS)\n\t$(CC) -o $@ $(OBJECTS)\n"
        )
    git(top)


def edit_c(top: str, number: int) -> None:
    path = os.path.join(top, "main.c")
    with open(path) as file:
        text = file.read()
    with open(path, "w") as file:
        file.write(f"#define ROUND {number + 1}\n" + text.partition("\n")[2])


def plant_rust(top: str) -> None:
    """The example workspace, with the crate it uses from beside it, below one directory."""
    os.makedirs(top)
    for name in ("workspace", "shared-greeting"):
        shutil.copytree(ROOT / "examples" / name, os.path.join(top, name), ignore=shutil.ignore_patterns("target"))
    os.makedirs(os.path.join(top, ".rch"))
    git(top)


def edit_rust(top: str, number: int) -> None:
    path = os.path.join(top, "workspace", "crates", "app", "src", "main.rs")
    with open(path) as file:
        text = file.read().partition("\n// round")[0]
    with open(path, "w") as file:
        file.write(f"{text}\n// round {number}\n")


def plant_files(top: str, files: int) -> None:
    for number in range(files):
        directory = os.path.join(top, f"part{number // 1000:02d}", f"mod{number // 100:04d}")
        if number % 100 == 0:
            os.makedirs(directory)
        with open(os.path.join(directory, f"file{number % 100:02d}.h"), "w") as file:
            file.write(f"/* {number} */\n" + "int f(void);\n" * 20)
    with open(os.path.join(top, "Makefile"), "w") as file:
        file.write("all:\n\t@:\n")
    git(top)


def edit_file(top: str, number: int) -> None:
    with open(os.path.join(top, "part00", "mod0003", "file07.h"), "w") as file:
        file.write(f"/* round {number} */\n")


# -- the run ------------------------------------------------------------------------------------------------------


def measure(bench: Bench, options: argparse.Namespace) -> list[dict[str, Any]]:
    trees = os.path.join(bench.place, "trees")
    rows: list[dict[str, Any]] = []
    wanted = options.only.split(",")

    def go(scenarios: list[Scenario], rounds: int, warm: int = WARM) -> None:
        for number in range(warm + rounds):
            for scenario in scenarios:
                scenario.round(number, counts=number >= warm)
        rows.extend(scenario.row() for scenario in scenarios)
        for row in rows[-len(scenarios) :]:
            print(f"{row['name']}: over ssh {row['over_ssh'] * 1000:+.0f} ms", file=sys.stderr)

    if "c" in wanted:
        plant_c(os.path.join(trees, "c-noop"), 60)
        shutil.copytree(os.path.join(trees, "c-noop"), os.path.join(trees, "c-edit"))
        make = ["make"]
        go(
            [
                Scenario(bench, "make, 60 C files, nothing to do", os.path.join(trees, "c-noop"), make),
                Scenario(bench, "make, 60 C files, one edited", os.path.join(trees, "c-edit"), make, edit_c),
            ],
            options.rounds,
        )
    if "rust" in wanted:
        plant_rust(os.path.join(trees, "rust-noop"))
        shutil.copytree(os.path.join(trees, "rust-noop"), os.path.join(trees, "rust-edit"))
        manifest = "workspace/Cargo.toml"
        cargo = ["cargo", "build", "--locked", "--manifest-path", manifest]
        go(
            [
                Scenario(bench, "cargo build, nothing to do", os.path.join(trees, "rust-noop"), cargo),
                Scenario(bench, "cargo build, one file edited", os.path.join(trees, "rust-edit"), cargo, edit_rust),
            ],
            options.rounds,
        )
    if "push" in wanted:
        for count in (int(word) for word in options.files.split(",")):
            tree = os.path.join(trees, f"files{count}")
            plant_files(tree, count)
            edited = f"{tree}-edit"
            shutil.copytree(tree, edited)
            none = ["make"]
            go(
                [
                    Scenario(bench, f"{count:,} files, nothing changed", tree, none),
                    Scenario(bench, f"{count:,} files, one edited", edited, none, edit_file),
                ],
                options.rounds,
            )
    if options.long:
        plant_c(os.path.join(trees, "long"), 1, heavy=options.heavy)
        go(
            [Scenario(bench, "make, one slow file edited", os.path.join(trees, "long"), ["make"], edit_c)],
            options.long,
            warm=1,
        )
    return rows


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f}"


def show(rows: list[dict[str, Any]]) -> None:
    print("| ms (least / p50 / p95) | ssh | rsync script | rch | rch - ssh (least / p50) | rch / ssh | rch / script |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        cells = [" / ".join(ms(row[f"{c}_{what}"]) for what in ("least", "p50", "p95")) for c in COLUMNS]
        over = f"{row['over_ssh_least'] * 1000:+.0f} / {row['over_ssh'] * 1000:+.0f}"
        ratios = f"{row['ratio_ssh']:.2f} | {row['ratio_script']:.2f}"
        print(f"| {row['name']} | {' | '.join(cells)} | {over} | {ratios} |")
    print()
    names = list(rows[0]["steps"])
    print(f"| of it rch, p50 ms | {' | '.join(names)} | requests | bytes up | bytes down | files up | files back |")
    print("|---|" + "---|" * (len(names) + 5))
    for row in rows:
        steps = " | ".join(ms(row["steps"][name]) for name in names)
        counts = f"{row['requests']} | {row['up_bytes']} | {row['down_bytes']}"
        files = f"{row['pushed'].get('files', 0)} | {row['returned'].get('files', 0)}"
        print(f"| {row['name']} | {steps} | {counts} | {files} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="c,rust,push")
    parser.add_argument("--files", default="1000,10000,50000")
    parser.add_argument("--long", type=int, default=0, metavar="ROUNDS", help="rounds of an edit that compiles long")
    parser.add_argument("--heavy", type=int, default=2200, help="functions of the file that compiles long")
    parser.add_argument("--lab", default="", metavar="DIR", help="an embedded lab that is up (default: one of its own)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the lab is taken down then too
    place = os.path.join(LAB_ROOT, f"bench-{os.getpid()}")
    lab = EmbeddedLab(options.lab or os.path.join(place, "lab"))
    os.makedirs(place, mode=0o700)
    try:
        if not options.lab:
            lab.up()
        bench = Bench(lab, place)
        try:
            rows = measure(bench, options)
        finally:
            bench.close()
    finally:
        if not options.lab:
            lab.down()
        remove_tree(place)
        drop_lab_root()
    if options.json:
        print(json.dumps(rows))
    else:
        show(rows)
        loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
        print(f"\n{options.rounds} rounds, {os.cpu_count()} CPUs, load at the end {loads}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
