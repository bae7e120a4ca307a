"""rchd's memory: jobs, switches of workers, history per project and kind. SQLite in WAL mode, one writer process.

The workers are the truth about running jobs; what stands here is what a restart needs to find them again.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from rch.paths import AbsPath

SCHEMA = 2

FINAL = frozenset({"done", "failed", "timeout", "killed", "oom", "lost"})
"""States that a job never leaves (checklist S21)."""

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE jobs (
      id TEXT PRIMARY KEY, key TEXT NOT NULL, state TEXT NOT NULL, products TEXT NOT NULL, worker TEXT NOT NULL,
      kind TEXT NOT NULL, created REAL NOT NULL, data TEXT NOT NULL
    );
    CREATE INDEX jobs_by_key ON jobs (key, created);
    CREATE INDEX jobs_by_state ON jobs (state);
    CREATE TABLE switches (worker TEXT PRIMARY KEY, state TEXT NOT NULL, since REAL NOT NULL);
    CREATE TABLE history (
      project TEXT NOT NULL, kind TEXT NOT NULL, class TEXT NOT NULL, green INTEGER NOT NULL DEFAULT 0,
      red INTEGER NOT NULL DEFAULT 0, unportable TEXT NOT NULL DEFAULT '', changed REAL NOT NULL,
      PRIMARY KEY (project, kind, class)
    );
    CREATE TABLE root_clock (
      root TEXT NOT NULL, worker TEXT NOT NULL, offset_ns INTEGER NOT NULL, boot_id TEXT NOT NULL,
      PRIMARY KEY (root, worker)
    );
    """,
    # Marks of the first schema were for ever and did not say what they rested on; they are learnt again.
    """
    DELETE FROM history WHERE kind = '*';
    ALTER TABLE history DROP COLUMN unportable;
    CREATE TABLE unportable (
      project TEXT NOT NULL, class TEXT NOT NULL, worker TEXT NOT NULL, equipment TEXT NOT NULL, reason TEXT NOT NULL,
      marked REAL NOT NULL, PRIMARY KEY (project, class)
    );
    """,
)


@dataclass(frozen=True)
class Mark:
    """A project that stays here for a class of workers: red on *worker*, as it was equipped then, and green here."""

    project: str
    worker_class: str
    worker: str
    equipment: str
    reason: str
    marked: float = 0.0


@dataclass
class Job:
    """One command on its way: what `rch jobs --json` shows (design.md 6.1), and what a restart needs.

    times: seconds since the epoch: received, created, started, ended, and durations pushed_s, ran_s, cpu_s, returned_s.
    roots: [{"path", "real", "key", "build_dirs"}] of the project.
    """

    id: str
    key: str
    command: list[str]
    cwd: str
    kind: str
    state: str = "queued"
    products: str = "none"
    worker: str = ""
    exit_status: int | None = None
    signal: int | None = None
    reason: str = ""
    slots: int = 0
    pushed: dict[str, Any] = field(default_factory=dict)
    returned: dict[str, Any] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    requester: str = ""
    project: str = ""
    project_name: str = ""
    roots: list[dict[str, Any]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    abandoned: bool = False

    def shown(self) -> dict[str, Any]:
        """The documented JSON object; inner fields stay inside."""
        data = asdict(self)
        for inner in ("key", "roots", "options"):
            del data[inner]
        return data


class Store:
    """All tables. Every method is one transaction and may be called from any thread."""

    def __init__(self, path: AbsPath) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection = self._open()

    def close(self) -> None:
        """Checkpoint and close."""
        with self._lock, contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()

    # -- jobs ---------------------------------------------------------------------------------------------------

    def put_job(self, job: Job) -> None:
        """Insert or replace."""
        data = json.dumps(asdict(job))
        with self._transaction() as db:
            db.execute(
                "INSERT INTO jobs VALUES (?,?,?,?,?,?,?,?) ON CONFLICT(id) DO UPDATE SET state=excluded.state, "
                "products=excluded.products, worker=excluded.worker, data=excluded.data",
                (
                    job.id,
                    job.key,
                    job.state,
                    job.products,
                    job.worker,
                    job.kind,
                    job.times.get("created", time.time()),
                    data,
                ),
            )

    def job(self, job_id: str) -> Job | None:
        """The job of that id, or the only one whose id starts with it."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT data FROM jobs WHERE id = ? OR id LIKE ? ORDER BY created DESC LIMIT 2",
                (job_id, job_id.replace("%", "").replace("_", "") + "%"),
            ).fetchall()
        jobs = [_job(row[0]) for row in rows]
        exact = [j for j in jobs if j.id == job_id]
        return exact[0] if exact else (jobs[0] if len(jobs) == 1 else None)

    def jobs(self, *, limit: int = 200, states: Sequence[str] = ()) -> list[Job]:
        """Newest first."""
        where = f"WHERE state IN ({','.join('?' * len(states))})" if states else ""
        with self._transaction() as db:
            rows = db.execute(
                f"SELECT data FROM jobs {where} ORDER BY created DESC LIMIT ?",  # noqa: S608  only question marks
                (*states, limit),
            ).fetchall()
        return [_job(row[0]) for row in rows]

    def unfinished(self) -> list[Job]:
        """Jobs that a restart has to look for."""
        return self.jobs(limit=10_000, states=("queued", "staging", "running", "returning"))

    def latest_with_key(self, key: str) -> Job | None:
        """The newest job of an identical command on an identical tree."""
        with self._transaction() as db:
            row = db.execute("SELECT data FROM jobs WHERE key = ? ORDER BY created DESC LIMIT 1", (key,)).fetchone()
        return _job(row[0]) if row else None

    def forget_jobs(self, before: float) -> int:
        """Delete finished jobs created before *before*; returns how many."""
        marks = ",".join("?" * len(FINAL))
        with self._transaction() as db:
            return db.execute(
                f"DELETE FROM jobs WHERE created < ? AND state IN ({marks})",  # noqa: S608  only question marks
                (before, *sorted(FINAL)),
            ).rowcount

    def count_jobs(self, since: float = 0.0) -> dict[str, int]:
        """Jobs by state, created since *since*."""
        with self._transaction() as db:
            rows = db.execute("SELECT state, count(*) FROM jobs WHERE created >= ? GROUP BY state", (since,))
            return {str(state): int(number) for state, number in rows.fetchall()}

    # -- switches of workers ------------------------------------------------------------------------------------

    def set_switch(self, worker: str, state: str) -> None:
        """``drain``, ``disable`` or "" (enabled); outlives restarts."""
        with self._transaction() as db:
            if state:
                db.execute("INSERT OR REPLACE INTO switches VALUES (?,?,?)", (worker, state, time.time()))
            else:
                db.execute("DELETE FROM switches WHERE worker = ?", (worker,))

    def switches(self) -> Mapping[str, str]:
        """Worker name to switch, only those that are set."""
        with self._transaction() as db:
            return {str(w): str(s) for w, s in db.execute("SELECT worker, state FROM switches").fetchall()}

    # -- history ------------------------------------------------------------------------------------------------

    def record_result(self, project: str, kind: str, worker_class: str, *, green: bool) -> None:
        """Count one result that came from the user's own process."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO history (project, kind, class, green, red, changed) VALUES (?,?,?,?,?,?) "
                "ON CONFLICT DO UPDATE SET green = green + excluded.green, red = red + excluded.red, "
                "changed = excluded.changed",
                (project, kind, worker_class, int(green), int(not green), time.time()),
            )

    def was_green(self, project: str, kind: str, worker_class: str) -> bool:
        """Has this kind of build of this project ever succeeded on that class of worker?"""
        with self._transaction() as db:
            row = db.execute(
                "SELECT green FROM history WHERE project = ? AND kind = ? AND class = ?", (project, kind, worker_class)
            ).fetchone()
        return bool(row and row[0])

    def mark_unportable(self, mark: Mark) -> None:
        """From now on the project stays here for that class."""
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO unportable VALUES (?,?,?,?,?,?)",
                (mark.project, mark.worker_class, mark.worker, mark.equipment, mark.reason, mark.marked or time.time()),
            )

    def unportable(self, project: str) -> list[Mark]:
        """The marks of *project*."""
        with self._transaction() as db:
            return [Mark(*row) for row in db.execute("SELECT * FROM unportable WHERE project = ?", (project,))]

    def forget_unportable(self, project: str = "", worker_class: str = "") -> int:
        """Take marks away: of one project and class, of a project, or all; returns how many."""
        with self._transaction() as db:
            return db.execute(
                "DELETE FROM unportable WHERE (? = '' OR project = ?) AND (? = '' OR class = ?)",
                (project, project, worker_class, worker_class),
            ).rowcount

    # -- clocks -------------------------------------------------------------------------------------------------

    def root_clock(self, root: str, worker: str) -> int | None:
        """The worker's offset in ns at the last job of this root there, or None."""
        with self._transaction() as db:
            row = db.execute(
                "SELECT offset_ns FROM root_clock WHERE root = ? AND worker = ?", (root, worker)
            ).fetchone()
        return int(row[0]) if row else None

    def set_root_clock(self, root: str, worker: str, offset_ns: int, boot_id: str) -> None:
        """Remember the offset under which a root's tree was last written there."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO root_clock VALUES (?,?,?,?)", (root, worker, offset_ns, boot_id))

    def forget_root_clock(self, root: str, worker: str) -> None:
        """The tree there starts afresh."""
        with self._transaction() as db:
            db.execute("DELETE FROM root_clock WHERE root = ? AND worker = ?", (root, worker))

    # -- insides ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._connection:
            yield self._connection

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError:
            # A damaged store is set aside and rebuilt from the workers (coverage C-12).
            aside = f"{self._path}.corrupted-{int(time.time())}"
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(self._path + suffix, aside + suffix)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(self._path, timeout=10, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            # NORMAL loses at most the last transactions on power loss, never the file; the workers know the rest.
            connection.execute("PRAGMA synchronous=NORMAL")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA:
                raise sqlite3.DatabaseError(f"schema {version} is newer than this rch")
            for number in range(version, SCHEMA):
                connection.executescript(f"BEGIN;{MIGRATIONS[number]};PRAGMA user_version={number + 1};COMMIT;")
            connection.execute("SELECT count(*) FROM jobs").fetchone()
        except sqlite3.DatabaseError:
            connection.close()
            raise
        return connection


def _job(data: str) -> Job:
    known = {f.name for f in fields(Job)}
    return Job(**{k: v for k, v in json.loads(data).items() if k in known})
