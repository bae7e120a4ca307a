"""A worker that lies: refused, reported, and nothing outside the project (nor in it) is touched."""

import os
import textwrap

import pytest

from rch.testing.callers import jobs
from rch.testing.variants import own_cache

HOSTILE = """\
import json, os, sys, zlib
sys.path.insert(0, {real!r})
from rch.worker import protocol as p

NOW = 1700000000000000000
JOB = "job"
LOG = p.log_frame(1, b"hello\\n", NOW)
ENTRIES, BODIES, EXTRA, LINE = [], [], {{}}, {{}}
sent = {{}}

def file(path, data=b"evil\\n", **more):
    row = [path, "f", 0o644, len(data), NOW, p.hash_bytes(data)]
    ENTRIES.append(row)
    BODIES.append((path, data))
    return row

def delta(fields):
    return {{"generation": "g2", "complete": False, "entries": ENTRIES, "order": [e[0] for e in ENTRIES], "deletes": [],
            "bodies": [[path, len(data)] for path, data in BODIES], **EXTRA}}, b"".join(data for _, data in BODIES)

def read(fields):
    if fields["offset"]:
        return {{"next": len(LOG), "state": "done", "ended": True, "rc": RC}}, b""
    return {{"next": len(LOG), "state": "running", "ended": False}}, LOG

RC = {{"code": 0, "signal": None, "reason": "exited", "message": "", "started_ns": NOW, "ended_ns": NOW + 1,
      "user_ms": 1, "system_ms": 1, "max_rss": 1}}

def get(fields):
    return {{"bodies": [[path, len(data)] for path, data in BODIES]}}, b"".join(data for _, data in BODIES)

def raw(number, payload, flags=0):
    sys.stdout.buffer.write(p.HEADER.pack(len(payload), number, flags) + payload)
    sys.stdout.buffer.flush()

{attack}

def answer(op, fields):
    import time
    if op == "hello":
        return {{"protocol": p.PROTOCOL, "version": "0", "build": "x", "python": "3", "boot_id": "b", "time_ns": time.time_ns(),
                "slots_total": 2, "compression": "zstd", "sandbox": {{"ok": True, "why": ""}}, "max_wait_s": 60}}, b""
    if op == "prepare":
        started = "spec" in fields
        return {{"slots": [0], "roots": {{r["key"]: {{"generation": "g1", "dirty": False, "applied": True}} for r in fields["roots"]}},
                "waited_s": 0, "started": started}}, b""
    if op == "sync":
        return {{"generation": "g1"}}, b""
    if op == "index":
        return {{"generation": "g1", "dirty": False, "entries": []}}, b""
    if op == "start":
        return {{"pid": 1, "started_ns": NOW}}, b""
    if op == "read":
        return read(fields)
    if op == "delta":
        return delta(fields)
    if op == "get":
        return get(fields)
    if op == "ping":
        return {{"time_ns": time.time_ns()}}, b""
    if op == "jobs":
        return {{"jobs": []}}, b""
    return {{"slots_used": 0, "accepted": 0}}, b""

sys.stdout.buffer.write(p.PREFACE + str(p.PROTOCOL).encode() + b"\\n")
sys.stdout.buffer.flush()
while True:
    head = sys.stdin.buffer.read(p.HEADER.size)
    if len(head) < p.HEADER.size:
        break
    length, number, flags = p.HEADER.unpack(head)
    payload = sys.stdin.buffer.read(length)
    if flags & p.FLAG_ZSTD:
        import subprocess
        payload = subprocess.run(["zstd", "-dqc"], input=payload[8:], capture_output=True).stdout
    fields, body = p.unpack(payload)
    found = answer(fields["op"], fields)
    if found is not None:
        raw(number, p.pack({{"ok": True, **found[0]}}, found[1]))
"""

ATTACKS = {
    # name: what the fake does; the words of the refusal
    "a path that climbs out": ('file("../../.bashrc")', "path"),
    "an absolute path": ('file("{outside}/planted")', "path"),
    "a path with an empty part": ('file("a//b")', "path"),
    "a link out of the root, then a file through it": (
        'ENTRIES.append(["out", "l", 0, 0, NOW, "{outside}"]); file("out/planted")',
        "out",
    ),
    "a device": ('row = file("device"); row[1] = "b"', "type"),
    "a setuid bit": ('row = file("tool"); row[2] = 0o4755', "mode"),
    "a file whose hash lies": ('row = file("product"); row[5] = p.hash_bytes(b"other")', "product"),
    "a file longer than it says": ('row = file("product"); row[3] = 2', "product"),
    "a file in .git": ('file(".git/hooks/pre-commit")', ""),
    "the loss of the whole project": ('EXTRA["deletes"] = ["source", "sub/keep", "sub"]', "without"),
    "a name with a zero byte": ('file("a\\0b")', "path"),
    "a path given twice": ('file("product"); file("product", b"again")', "product"),
    "entries that are no list": ('EXTRA["entries"] = {"a": 1}', ""),
    "a size beyond every disk": ('row = file("product"); row[3] = 1 << 60', "product"),
}

STREAMS = {
    "a message over the limit": (
        (
            "def delta(fields):\n    sys.stdout.buffer.write(p.HEADER.pack(p.MAX_MESSAGE + 1, 0, 0)); sys.stdout.buffer.flush()\n"
            "    return None"
        ),
        "message of",
    ),
    "a compressed bomb": (
        (
            "import struct, subprocess\n"
            "BOMB = subprocess.run(['zstd', '-qc'], input=bytes(1 << 28), capture_output=True).stdout\n"
            "def delta(fields):\n    raw(0, struct.pack('>Q', 1000) + BOMB, p.FLAG_ZSTD)\n    return None"
        ),
        "another size",
    ),
    "JSON that is none": ("def delta(fields):\n    raw(0, b'\\0\\0\\0\\2xx')\n    return None", "JSON"),
    "a log that is cut": ("LOG = LOG[:-2]", "cut"),
    "a log frame of another stream": ('LOG = b"\\x09" + LOG[1:]', ""),
}


@pytest.fixture
def outside(tmp_path):
    """A directory that nothing may touch."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "mine").write_text("mine\n")
    return place


@pytest.fixture
def project(tmp_path):
    place = tmp_path / "home" / "project"
    (place / "sub").mkdir(parents=True)
    (place / "source").write_text("content\n")
    (place / "sub" / "keep").write_text("keep\n")
    return place


@pytest.fixture
def hostile(rch_state, embedded_worker, outside, tmp_path):
    def put(attack):
        cache = own_cache(rch_state, embedded_worker, str(tmp_path / "cache"))
        agent = os.path.realpath(os.path.join(cache, "bin", "rch-wkr"))
        real = agent + ".real"
        os.rename(agent, real)
        with open(agent, "w", encoding="utf-8") as file:
            file.write(HOSTILE.format(real=real, attack=textwrap.dedent(attack.replace("{outside}", str(outside)))))
        os.chmod(agent, 0o700)

    return put


def tree(place):
    """path -> content of everything below *place*; links are not followed."""
    found = {}
    for path in sorted(place.rglob("*")):
        found[str(path.relative_to(place))] = (
            os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
        )
    return found


def run(state, project):
    return state.exec("echo", "x", cwd=project, options=("--worker", "lab1"), timeout_s=100)


class TestAHonestAnswerOfTheSameFake:
    def test_is_placed_so_that_the_refusals_mean_something(self, rch_state, hostile, project):
        hostile('file("product", b"good\\n")')
        done = run(rch_state, project)
        assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr
        assert (project / "product").read_text() == "good\n"


class TestAHostileAnswer:
    @pytest.mark.parametrize("attack", ATTACKS)
    def test_ar_08_is_refused_and_reported_and_touches_nothing(
        self, rch_state, hostile, project, outside, tmp_path, attack
    ):
        code, words = ATTACKS[attack]
        hostile(code)
        before = tree(tmp_path / "home"), tree(outside)
        done = run(rch_state, project)
        assert (tree(tmp_path / "home"), tree(outside)) == before
        if attack == "a file in .git":  # never placed, and nothing else was wrong
            assert done.returncode in (0, 102), done.stderr
            return
        assert done.returncode == 102, (done.stdout, done.stderr)
        (line,) = done.stderr.decode().splitlines()
        assert line.startswith("rch: error["), line
        assert words in line
        assert "lab1" in line
        assert [job["products"] for job in jobs(rch_state)] == ["undelivered"]

    @pytest.mark.parametrize("stream", STREAMS)
    def test_os_05_that_breaks_the_protocol_ends_the_connection_and_rchd_goes_on(
        self, rch_state, hostile, project, outside, tmp_path, stream
    ):
        code, _ = STREAMS[stream]
        hostile(code)
        before = tree(tmp_path / "home"), tree(outside)
        done = run(rch_state, project)
        assert done.returncode in (102, 103), (done.stdout, done.stderr)
        (line,) = done.stderr.decode().splitlines()
        assert line.startswith("rch: error["), line
        assert (tree(tmp_path / "home"), tree(outside)) == before
        assert rch_state.run("rch", "daemon", "status").returncode == 0

    def test_os_05_a_log_without_end_can_be_cancelled_and_fills_no_memory(self, rch_state, hostile, project):
        from rch.testing.callers import caller, rchd_pid

        hostile(
            "CHUNK = p.log_frame(1, b'x' * 60000, NOW)\n"
            "def read(fields):\n    return {'next': 0, 'state': 'running', 'ended': False}, CHUNK"
        )
        words = ("rch", "exec", "--worker", "lab1", "--", "echo", "x")
        with caller(rch_state, *words, cwd=str(project)) as client:
            client.wait_for(b"x" * 20_000_000)
            with open(f"/proc/{rchd_pid(rch_state)}/status", encoding="ascii") as file:
                (size_kb,) = (int(line.split()[1]) for line in file if line.startswith("VmRSS:"))
            client.signal(15)
            assert client.end() in (143, -15)
        assert size_kb < 400_000
