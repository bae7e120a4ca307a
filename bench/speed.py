"""Speed scores: does half a CPU score lower than a whole one, and does the same machine score the same again?

    python bench/speed.py [--rounds 5]              needs root, for podman containers

Two containers that share this machine's programs, one with ``--cpus 0.5``, one with ``--cpus 1``, are measured in turn
by ``rch-wkr bench``. While that lasts their control groups have the largest share of the CPU that there is, so others
on this machine take little of what the quota grants. Prints each score as the worker's facts have it, the spread
(largest against smallest) and the ratio of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile

from rch.testing.lab_containers import ContainerLab
from rch.testing.lab_provision import CHECKOUT
from rch.worker.build import build

SPREAD = 1.10
"""What five runs may differ by at most (issue: stable within 10 %)."""

QUOTAS = (0.5, 1.0)


def main() -> int:
    """0 when the order is right and both are stable."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="speed-", dir=os.path.join(CHECKOUT, ".cache")) as place:
        program = os.path.join(place, "rch-wkr")
        build(program)
        labs = [ContainerLab(os.path.join(place, f"box{quota}"), cpus=quota, twin=True) for quota in QUOTAS]
        try:
            for lab in labs:
                lab.up(with_roles=False)
                with open(program, "rb") as file:
                    send = ("exec", "--interactive", lab.worker.container, "sh", "-c", "cat >/var/tmp/rch-wkr")
                    lab.podman.run(*send, data=file.read())
            scores: dict[float, list[float]] = {quota: [] for quota in QUOTAS}
            for number in range(rounds):
                for quota, lab in zip(QUOTAS, labs, strict=True):
                    favour(lab)
                    done = lab.worker.run(
                        *("python3", "/var/tmp/rch-wkr", "bench", "--keep", "--cache", "/var/tmp/cache"), timeout_s=300
                    )
                    found = json.loads(done.stdout)
                    scores[quota].append(found["speed_score"])
                    print(
                        f"round {number + 1}  cpus {quota}  score {found['speed_score']}  {json.dumps(found['rates'])}"
                    )
        finally:
            for lab in labs:
                if lab.workers:
                    favour(lab, ends=True)
                lab.down()
    return report(scores)


def favour(lab: ContainerLab, *, ends: bool = False) -> None:
    """Give the container's control group, and podman's above it, the largest share of the CPU, or the usual one."""
    pid = lab.podman.run("inspect", "--format", "{{.State.Pid}}", lab.worker.container).stdout.decode().strip()
    with open(f"/proc/{pid}/cgroup", encoding="ascii") as file:
        groups = dict(line.strip().split(":", 2)[1:] for line in file)
    path = groups.get("cpu") or groups.get("cpu,cpuacct") or groups.get("", "/")
    top, name, usual, most = ("", "cpu.weight", "100", "10000")
    if "cpu" in groups or "cpu,cpuacct" in groups:
        top, name, usual, most = ("cpu", "cpu.shares", "1024", "262144")
    while path != "/":
        try:
            with open(os.path.join("/sys/fs/cgroup", top, path.lstrip("/"), name), "w", encoding="ascii") as file:
                file.write(usual if ends else most)
        except OSError as error:
            print(f"{path}: {error.strerror}: what else runs shows in the figures", file=sys.stderr)
        path = os.path.dirname(path)


def report(scores: dict[float, list[float]]) -> int:
    """Print what the scores come to; 1 if they do not hold what is promised."""
    medians = {quota: statistics.median(found) for quota, found in scores.items()}
    good = medians[0.5] < medians[1.0]
    for quota, found in scores.items():
        spread = max(found) / min(found)
        good = good and spread <= SPREAD
        print(f"cpus {quota}: median {medians[quota]:.1f}, largest/smallest {spread:.3f}")
    print(f"half a CPU scores {medians[0.5] / medians[1.0]:.2f} of a whole one: {'ok' if good else 'NOT AS PROMISED'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
