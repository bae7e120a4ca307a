"""How long the decision takes in process: one column per tier, beside the limits of the seed (coverage B-4).

    .venv/bin/python bench/decision.py [--json]

Each line is judged again and again for about 0.2 s; shown are the median and the 99th percentile in milliseconds. The
tier of a line is that of its last segment. Budget: 0.2 ms for a decision (design, section 9).
"""

from __future__ import annotations

import json
import statistics
import sys
import time

from rch.intercept import classify_argv, decide
from rch.intercept.decision import Decision, Policy, Segment

LIMITS_MS = {0: 0.01, 1: 0.1, 2: 0.2, 3: 0.5, 4: 5.0}
BUDGET_MS = 0.2
CWD = "/home/me/app"

LINES = {
    0: ["ls -la", "git status", "cd src", "git commit -m 'make it work'"],
    1: ['bash -c "cd $DIR && cargo build"', "PATH=/bin make", "cargo build |", 'eval "make all"'],
    2: ["./run.sh --fast", "node build.js", "terraform apply", "java -jar app.jar"],
    3: ["make clean", "cargo fmt --check", "cargo run -- --serve", "gcc -o /tmp/t t.c"],
    4: [
        "cargo build",
        "make -j4",
        "cd x && RUSTFLAGS=-Dwarnings cargo build 2>&1 | tail -20; ./run",
        "bash -lc 'cd app && cargo test 2>&1 | tail -5'",
        "mkdir -p build && cd build && cmake .. && make -j$(nproc) && ctest --output-on-failure",
    ],
}
ARGVS = {
    0: [["ls", "-la"]],
    2: [["./run.sh"]],
    3: [["make", "clean"], ["cargo", "fmt"]],
    4: [["cargo", "build", "--release"], ["gcc", "-O2", "-c", "x.c", "-o", "x.o"], ["make", "-j4"]],
}


def _measure(judge, subject) -> list[float]:
    judge(subject)
    times: list[float] = []
    end = time.perf_counter() + 0.2
    while time.perf_counter() < end or len(times) < 50:
        began = time.perf_counter_ns()
        judge(subject)
        times.append((time.perf_counter_ns() - began) / 1e6)
    return times


def main() -> int:
    policy = Policy()

    def line(text: str) -> Decision:
        return decide(text, CWD, policy)

    def argv(words: list[str]) -> Segment:
        return classify_argv(words, CWD, policy)

    rows = []
    for what, judge, subjects in (("line", line, LINES), ("argv", argv, ARGVS)):
        for tier, texts in subjects.items():
            times = [one for text in texts for one in _measure(judge, text)]
            times.sort()
            rows.append(
                {
                    "what": what,
                    "tier": tier,
                    "p50_ms": round(statistics.median(times), 4),
                    "p99_ms": round(times[int(len(times) * 0.99)], 4),
                    "seed_limit_ms": LIMITS_MS[tier],
                    "budget_ms": BUDGET_MS,
                }
            )
    if "--json" in sys.argv[1:]:
        print(json.dumps(rows))
        return 0
    print(f"{'':6}" + "".join(f"{'tier ' + str(tier):>12}" for tier in LIMITS_MS))
    for what in ("line", "argv"):
        for key in ("p50_ms", "p99_ms"):
            cells = {row["tier"]: row[key] for row in rows if row["what"] == what}
            print(f"{what:6}" + "".join(f"{cells.get(tier, '-'):>12}" for tier in LIMITS_MS) + f"  {key}")
    print(f"{'seed':6}" + "".join(f"{limit:>12}" for limit in LIMITS_MS.values()) + "  limit, ms")
    print(f"{'budget':6}" + f"{BUDGET_MS:>12}" * len(LIMITS_MS) + "  ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
