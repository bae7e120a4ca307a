"""rchd's memory over restarts, damage and crowds."""

import os
import sqlite3
import threading
import time

from rch.daemon.store import MIGRATIONS, Job, Mark, Store


def job(name, **more):
    return Job(id=name, key="k", command=["make"], cwd="/p", kind="make", times={"created": time.time()}, **more)


class TestTheStore:
    def test_a_job_comes_back_as_it_was(self, tmp_path):
        store = Store(str(tmp_path / "db"))
        store.put_job(job("j-1", state="running", roots=[{"key": "a"}], pushed={"files": 3}))
        store.close()
        again = Store(str(tmp_path / "db")).job("j-1")
        assert (again.state, again.roots, again.pushed) == ("running", [{"key": "a"}], {"files": 3})

    def test_a_unique_beginning_of_an_id_is_enough(self, tmp_path):
        store = Store(str(tmp_path / "db"))
        store.put_job(job("j-abc"))
        store.put_job(job("j-abd"))
        assert store.job("j-abc").id == "j-abc"
        assert store.job("j-ab") is None
        assert store.job("%") is None

    def test_what_is_shown_keeps_inner_fields_inside(self):
        assert {"key", "roots", "options"}.isdisjoint(job("j-1").shown())

    def test_ds_03_a_damaged_file_is_set_aside_and_rchd_goes_on(self, tmp_path):
        (tmp_path / "db").write_bytes(b"this is no database" * 100)
        store = Store(str(tmp_path / "db"))
        store.put_job(job("j-1"))
        assert store.job("j-1") is not None
        assert [n for n in os.listdir(tmp_path) if n.startswith("db.corrupted-")]

    def test_ds_03_the_file_is_private(self, tmp_path):
        Store(str(tmp_path / "db"))
        assert os.stat(tmp_path / "db").st_mode & 0o077 == 0

    def test_ds_03_twenty_threads_make_twenty_entries(self, tmp_path):
        store = Store(str(tmp_path / "db"))
        threads = [threading.Thread(target=store.put_job, args=(job(f"j-{i}"),)) for i in range(20)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert len(store.jobs()) == 20

    def test_only_unfinished_jobs_are_looked_for_after_a_restart(self, tmp_path):
        store = Store(str(tmp_path / "db"))
        for state in ("running", "returning", "done", "failed", "lost"):
            store.put_job(job(f"j-{state}", state=state))
        assert {j.state for j in store.unfinished()} == {"running", "returning"}

    def test_switches_outlive_a_restart_and_enable_takes_them_away(self, tmp_path):
        store = Store(str(tmp_path / "db"))
        store.set_switch("css", "drain")
        store.close()
        store = Store(str(tmp_path / "db"))
        assert store.switches() == {"css": "drain"}
        store.set_switch("css", "")
        assert store.switches() == {}

    def test_hb_08_green_is_remembered_per_project_kind_and_class(self, tmp_path):
        store = Store(str(tmp_path / "db"))
        store.record_result("p", "make", "debian-12", green=False)
        assert not store.was_green("p", "make", "debian-12")
        store.record_result("p", "make", "debian-12", green=True)
        assert store.was_green("p", "make", "debian-12")
        assert not store.was_green("p", "cargo.build", "debian-12")
        assert not store.was_green("p", "make", "fedora-40")

    def test_hb_08_marks_are_kept_one_per_class_and_taken_away(self, tmp_path):
        store = Store(str(tmp_path / "db"))
        store.mark_unportable(Mark("p", "debian-12", "css", "e1", "needs libfoo"))
        store.mark_unportable(Mark("p", "debian-12", "yto", "e2", "needs libbar"))
        store.mark_unportable(Mark("p", "fedora-40", "fed", "e3", "needs libfoo"))
        store.mark_unportable(Mark("q", "debian-12", "css", "e1", "needs libfoo"))
        assert sorted((m.worker, m.reason) for m in store.unportable("p")) == [
            ("fed", "needs libfoo"),
            ("yto", "needs libbar"),
        ]
        assert store.forget_unportable("p", "debian-12") == 1
        assert [m.worker for m in store.unportable("p")] == ["fed"]
        assert store.forget_unportable() == 2
        assert store.unportable("q") == []

    def test_of_the_first_schema_is_taken_over_without_its_marks(self, tmp_path):
        connection = sqlite3.connect(tmp_path / "db")
        connection.executescript(MIGRATIONS[0] + "PRAGMA user_version=1;")
        connection.execute("INSERT INTO history VALUES ('p', '*', 'debian-12', 0, 0, 'for ever', 0.0)")
        connection.execute("INSERT INTO history VALUES ('p', 'make', 'debian-12', 1, 0, '', 0.0)")
        connection.commit()
        connection.close()
        store = Store(str(tmp_path / "db"))
        assert store.unportable("p") == []
        assert store.was_green("p", "make", "debian-12")
