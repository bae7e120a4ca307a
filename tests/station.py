"""rchd's desk in this process: the real project and transfer sides, a worker in memory, a caller made of two queues.

No process but what the caller's hooks start, and no network.
"""

import json
import os
import queue
import subprocess
import threading

from rch.client_frames import log_frames
from rch.config.places import places
from rch.daemon import places as rooms
from rch.daemon.desk import Desk
from rch.daemon.peer import Peer
from rch.daemon.pool import Pool
from rch.daemon.store import Store
from rch.daemon.wire import Frame
from rch.execute.mock import MockExecutor, MockWorker
from rch.fleet.model import Declared, Observed, Registry, Worker


class Caller:
    """The client's end of a connection, as far as the pipeline needs one: it proves roots and keeps what it hears."""

    def __init__(self):
        self.up = queue.Queue()
        self.frames = []
        self.done = threading.Event()

    def send(self, frame, payload=b""):
        self.frames.append((frame, payload))
        if frame is Frame.PROVE:
            fields = json.loads(payload)
            path = os.path.join(fields["root"], fields["nonce"])
            with open(path, "x", encoding="ascii"):
                pass
            here = os.stat(fields["root"])
            self.nonce = path
            answer = {"root": fields["root"], "dev": here.st_dev, "ino": here.st_ino}
            self.up.put((Frame.PROOF, json.dumps(answer).encode()))
        elif frame is Frame.PROVED:
            os.unlink(self.nonce)
        elif frame is Frame.HOOK:
            fields = json.loads(payload)
            done = subprocess.run(["sh", "-c", fields["command"]], cwd=fields["cwd"], check=False, timeout=60)
            answer = {"name": fields["name"], "status": done.returncode, "problem": ""}
            self.up.put((Frame.HOOK_DONE, json.dumps(answer).encode()))
        elif frame is Frame.LOCAL:
            self.up.put((Frame.LOCAL_DONE, b'{"status": 0}'))

    def receive(self):
        return self.up.get()

    def close(self):
        self.up.put(None)

    def last(self, *kinds):
        return next((f, json.loads(p)) for f, p in reversed(self.frames) if f in kinds)

    @property
    def output(self):
        data = b"".join(p[8:] for f, p in self.frames if f is Frame.LOG)
        return b"".join(payload for stream, payload in log_frames(data) if stream == 1)


class Leaver(Caller):
    """A caller that goes away without a word as soon as its job is accepted."""

    def send(self, frame, payload=b""):
        super().send(frame, payload)
        if frame is Frame.ACCEPTED:
            self.close()


class Station:
    """A desk with one mock worker, and a project of a few files.

    facts: what is observed of the worker. programs: what it can run beside the mock's own shell.
    """

    def __init__(self, tmp, plan, facts=None, programs=None):
        self.env = {"HOME": str(tmp), "PATH": "/usr/bin:/bin", "RCH_STATE_DIR": str(tmp / "s")}
        self.places = places(self.env)
        rooms.make_directories(self.places)
        self.store = Store(os.path.join(self.places.state, "db"))
        self.mock = MockWorker(slots=2, programs=programs)
        worker = Worker(
            Declared("mock", "mock", executor="mock", slots=2), Observed({"os": {"id": "mock"}, **(facts or {})})
        )
        self.executor = MockExecutor(worker, self.mock, plan)
        self.pool = Pool(self.places.state, self.places.run, "c", make_executor=lambda _: self.executor)
        self.pool._adopt(Registry({"mock": worker}, "d"))  # the watch thread is not started: no operation but ours
        self.desk = Desk(self.places, self.store, self.pool)
        self.desk._adopted.set()  # orders wait until the jobs of an earlier rchd are known; there was none
        self.project = tmp / "project"
        self.project.mkdir()
        (self.project / "Makefile").write_text("all:\n")
        (self.project / "in").write_text("first")

    def configure(self, text):
        """Write the user's configuration file."""
        path = os.path.join(self.env["HOME"], ".config", "rch", "config.toml")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def run(self, script, **options):
        """(status or None for a run here, caller) of a free command on the pinned worker."""
        return self.order(["sh", "-c", script], worker="mock", **options)

    def order(self, argv, env=None, caller=None, *, confined=False, **options):
        """(status or None for a run here, caller) of any command."""
        caller = caller or Caller()
        request = {
            "argv": argv, "cwd": str(self.project), "env": {**self.env, **(env or {})}, "umask": 0o22, "rows": 24,
            "cols": 80, "fds": {"0": "null", "1": "pipe", "2": "pipe", "same": False}, "uid": os.getuid(),
            "gid": os.getgid(), "pid": 1, "options": options,
        }  # fmt: skip
        self.pool.member("mock").retry_at = 0.0  # a new command later: the next probe would be due
        self.desk.serve(caller, request, Peer(confined=confined, offline=confined))
        if isinstance(caller, Leaver):
            return None, caller
        frame, fields = caller.last(Frame.EXIT, Frame.ERROR, Frame.LOCAL)
        return (None if frame is Frame.LOCAL else fields["status"]), caller

    def job(self):
        """The newest job."""
        return self.store.jobs(limit=1)[0]

    def asked(self, op):
        """The fields of every request *op* that the worker got."""
        return [fields for name, fields in self.executor.calls if name == op]

    def close(self):
        self.desk.stop()
        self.executor.close()
        self.store.close()
