"""What one command costs before anything runs: whole processes, beside the cheapest ones of this machine.

``python bench/client_startup.py [ROUNDS]``. The columns are interleaved round by round, so that a machine that slows
down slows all of them; read the ratios. The client talks to an rchd that answers at once, so what is left is the
client's own: interpreter, imports, the request, the frames, the end.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from rch.daemon.spool import SpoolServer  # noqa: E402
from rch.daemon.wire import Frame, SocketTransport, Transport, log_chunk, read_request  # noqa: E402
from rch.worker.protocol import log_frame  # noqa: E402

CLIENT = [sys.executable, "-I", "-S", str(ROOT / "rch" / "client.py")]


def answer(transport: Transport) -> None:
    chunk = log_frame(1, b"hello\n", 1)
    transport.send(Frame.ACCEPTED, b'{"job":"j-1","worker":"w","kind":"make"}')
    transport.send(Frame.LOG, log_chunk(len(chunk), chunk))
    transport.send(Frame.EXIT, json.dumps({"status": 0, "job": "j-1"}).encode())
    transport.receive()
    transport.close()


def listen(state: str) -> None:
    os.makedirs(state + "/run", mode=0o700)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(state + "/run/rchd.sock")
    listener.listen(16)

    def serve() -> None:
        while True:
            transport = SocketTransport(listener.accept()[0])
            read_request(transport)
            answer(transport)

    threading.Thread(target=serve, daemon=True).start()


def spawn_ms(argv: list[str], env: dict[str, str]) -> float:
    devnull = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
    begun = time.perf_counter()
    pid = os.posix_spawn(argv[0], argv, env, file_actions=[devnull])
    _, status = os.waitpid(pid, 0)
    took = (time.perf_counter() - begun) * 1000
    if status:
        sys.exit(f"{argv} ended with wait status {status}")
    return took


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory(prefix="rch-b-") as place:
        up, spooled, none = place + "/up", place + "/spooled", place + "/none"
        os.makedirs(none)
        listen(up)
        server = SpoolServer(spooled + "/run/spool", lambda transport, _request: answer(transport))
        os.makedirs(spooled + "/run", mode=0o700)
        server.start()
        base = {"PATH": "/usr/bin:/bin", "HOME": place, "RCH_QUIET": "1", "LANG": "C.UTF-8", "TMPDIR": place}
        python = [sys.executable, "-I", "-S", "-c"]
        heavy = "import json, socket, select, signal"
        columns: dict[str, tuple[list[str], dict[str, str]]] = {
            "/bin/true": (["/bin/true"], base),
            "sh -c :": (["/bin/sh", "-c", ":"], base),
            "python -I -S -c pass": ([*python, "pass"], base),
            "  with json, socket, select, signal": ([*python, heavy], base),
            "client, job over the socket": ([*CLIENT, "--", "make"], {**base, "RCH_STATE_DIR": up}),
            "client, job through the spool": ([*CLIENT, "--", "make"], {**base, "RCH_STATE_DIR": spooled}),
            "client, /bin/true here (local-only)": (
                [*CLIENT, "--", "/bin/true"], {**base, "RCH_STATE_DIR": none, "RCH_LOCAL_ONLY": "1"},
            ),
            "client, /bin/true by RCH_BYPASS": (
                [*CLIENT, "--", "/bin/true"], {**base, "RCH_STATE_DIR": none, "RCH_BYPASS": "1"},
            ),
            "rch exec, job over the socket": (
                [sys.executable, "-m", "rch", "exec", "--", "make"],
                {**base, "RCH_STATE_DIR": up, "PYTHONPATH": str(ROOT)},
            ),
        }  # fmt: skip
        times: dict[str, list[float]] = {name: [] for name in columns}
        for number in range(rounds + 3):
            for name, (argv, env) in columns.items():
                took = spawn_ms(argv, env)
                if number >= 3:  # the first ones warm the caches
                    times[name].append(took)
        server.stop()
    least = statistics.median(times["python -I -S -c pass"])
    print(f"{'ms, whole process':<38} {'p50':>7} {'p95':>7} {'p99':>7} {'x python':>9}")
    for name, values in times.items():
        cuts = statistics.quantiles(values, n=100)
        print(f"{name:<38} {cuts[49]:>7.2f} {cuts[94]:>7.2f} {cuts[98]:>7.2f} {cuts[49] / least:>9.2f}")


if __name__ == "__main__":
    main()
