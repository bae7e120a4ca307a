"""Does a cold push gain by going in several rsync streams (coverage A-19)? Prints a markdown table.

Run: python bench/streams.py [--rounds 5] [--lab DIR]

One lab, one OpenSSH master, as rchd has it: every stream is a channel of the same connection. The files of a tree are
split by size; every round sends each tree in 1, 2 and 4 streams in turn, into an empty directory each time. "least" is
what is left of the times when nothing else runs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from rch.execute.ssh import SshExecutor  # noqa: E402
from rch.fleet.model import Declared, Worker  # noqa: E402
from rch.paths import AbsPath  # noqa: E402
from rch.testing.lab import LAB_ROOT, EmbeddedLab, drop_lab_root  # noqa: E402

STREAMS = (1, 2, 4)

TREES = {
    "20,000 files of 4 kB": (20_000, 4096),
    "400 files of 512 kB": (400, 512 << 10),
    "4 files of 48 MB": (4, 48 << 20),
}


def make_tree(place: str, files: int, size: int) -> list[str]:
    """Files whose content does not compress, fifty to a directory; their paths."""
    paths = []
    for number in range(files):
        path = f"d{number // 50}/f{number}"
        os.makedirs(os.path.join(place, os.path.dirname(path)), exist_ok=True)
        with open(os.path.join(place, path), "wb") as file:
            file.write(os.urandom(size))
        paths.append(path)
    return paths


def send(executor: SshExecutor, place: str, paths: list[str], streams: int, target: str) -> float:
    """Seconds of one cold push of files of one size, which any split balances."""
    shutil.rmtree(target, ignore_errors=True)  # the embedded worker's files are this machine's
    os.makedirs(target)
    lists = [paths[number::streams] for number in range(streams)]
    started = time.monotonic()
    with ThreadPoolExecutor(streams) as pool:
        list(pool.map(lambda one: executor.send_files(AbsPath(place), one, target), lists))
    return time.monotonic() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lab", default=os.path.join(LAB_ROOT, "bench-streams"))
    options = parser.parse_args()
    lab = EmbeddedLab(options.lab)
    lab.up()
    place = os.path.join(options.lab, "trees")
    try:
        worker = lab.worker
        declared = Declared(
            worker.name, worker.host, worker.port, worker.user, worker.client_key, worker.known_hosts,
            cache_dir=worker.cache_dir, ssh_options=("-F", "/dev/null"),
        )  # fmt: skip
        executor = SshExecutor(Worker(declared), run_dir=AbsPath(options.lab), client="bench")
        executor.connect()
        print("| tree | streams | least (s) | median (s) | to one stream |\n|---|---|---|---|---|")
        for name, (files, size) in TREES.items():
            paths = make_tree(place, files, size)
            send(executor, place, paths[:8], 1, f"{place}.there")  # the master is open from here on
            times: dict[int, list[float]] = {streams: [] for streams in STREAMS}
            for number in range(options.rounds):
                for streams in STREAMS[number % 3 :] + STREAMS[: number % 3]:
                    times[streams].append(send(executor, place, paths, streams, f"{place}.there"))
            for streams in STREAMS:
                least, median = min(times[streams]), statistics.median(times[streams])
                print(f"| {name} | {streams} | {least:.2f} | {median:.2f} | {least / min(times[1]):.2f} |", flush=True)
            shutil.rmtree(place)
        executor.close()
    finally:
        lab.down()
        drop_lab_root()


if __name__ == "__main__":
    main()
