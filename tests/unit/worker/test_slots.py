"""Slots: never more than there are, given back by whatever end, in order of arrival."""

import os
import signal
import threading
import time

import pytest

from rch.testing.worker_process import WorkerRefused
from rch.testing.worker_root import new_job
from rch.worker.refusal import Refusal
from rch.worker.slots import Slots, free


@pytest.fixture
def slots(tmp_path):
    return Slots(str(tmp_path), 4)


def soon(seconds=20.0):
    return time.monotonic() + seconds


class TestTaking:
    def test_distinct_slots_until_there_are_none(self, slots):
        first, second = slots.take(3, soon()), slots.take(1, soon())
        assert sorted([*first, *second]) == [0, 1, 2, 3]
        assert slots.used() == [0, 1, 2, 3]
        assert slots.take(1, time.monotonic()) is None
        free(first)
        assert slots.used() == list(second)
        assert len(slots.take(3, time.monotonic())) == 3

    def test_more_than_there_are_is_refused_at_once(self, slots):
        with pytest.raises(Refusal, match="this worker has 4"):
            slots.take(5, soon(1000))

    def test_a_wait_that_ends_keeps_nothing(self, slots):
        held = slots.take(3, soon())
        assert slots.take(2, soon(0.2)) is None
        assert len(slots.take(1, time.monotonic())) == 1
        free(held)

    def test_slot_i_is_cpu_i_of_those_available(self, slots):
        cpus = sorted(os.sched_getaffinity(0))
        assert [slots.cpu(n) for n in range(4)] == [cpus[n % len(cpus)] for n in range(4)]

    def test_the_number_of_slots_can_be_written_down(self, tmp_path):
        (tmp_path / "total").write_text("7\n")
        assert Slots(str(tmp_path)).total == 7
        assert Slots(str(tmp_path), 3).total == 3
        (tmp_path / "total").write_text("many")
        assert Slots(str(tmp_path)).total == len(os.sched_getaffinity(0))

    def test_counting_does_not_take(self, slots):
        stop = threading.Event()

        def count():
            while not stop.is_set():
                slots.used()

        counting = threading.Thread(target=count)
        counting.start()
        try:
            for _ in range(50):
                held = slots.take(4, time.monotonic())
                assert held is not None
                free(held)
        finally:
            stop.set()
            counting.join()

    def test_sq_09_many_at_once_are_served_in_order_of_arrival(self, slots):
        """One that wants all four waits in a stream of ones, and nobody who came later gets ahead of it."""
        order, lock, threads = [], threading.Lock(), []
        held = slots.take(4, soon())

        def want(name, count):
            got = slots.take(count, soon(60))
            with lock:
                order.append(name)
            time.sleep(0.02)
            free(got)

        for name, count in [("a1", 1), ("b4", 4), ("c1", 1), ("d1", 1), ("e4", 4), ("f1", 1)]:
            thread = threading.Thread(target=want, args=(name, count))
            thread.start()
            threads.append(thread)
            waiting = os.path.join(slots._directory, "queue")
            until = soon()
            while time.monotonic() < until and (not os.path.isdir(waiting) or len(os.listdir(waiting)) < len(threads)):
                time.sleep(0.005)
        free(held)
        for thread in threads:
            thread.join(60)
        assert order.index("b4") == 1
        assert order.index("e4") == 4
        assert set(order[2:4]) == {"c1", "d1"}
        assert slots.used() == []

    def test_a_crash_in_the_queue_holds_nobody_up(self, slots):
        held = slots.take(4, soon())
        child = os.fork()
        if child == 0:
            slots.take(4, soon(1000))
            os._exit(0)
        queue = os.path.join(slots._directory, "queue")
        until = soon()
        while time.monotonic() < until and not (os.path.isdir(queue) and os.listdir(queue)):
            time.sleep(0.01)
        got = []
        waiting = threading.Thread(target=lambda: got.append(slots.take(1, soon(30))))
        waiting.start()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        free(held)
        waiting.join(30)
        assert len(got[0]) == 1
        free(got[0])


class TestJobsAndTheirSlots:
    def used(self, worker):
        return worker.request("health").fields["slots_used"]

    def test_sq_01_several_serves_never_exceed_the_total(self, make_worker, tmp_path):
        workers = [make_worker() for _ in range(3)]
        running = tmp_path / "running"
        running.mkdir()
        most = []
        stop = threading.Event()

        def watch():
            while not stop.is_set():
                most.append(self.used(workers[0]))
                time.sleep(0.01)

        watcher = threading.Thread(target=watch)
        watcher.start()

        def run(worker, count):
            for _ in range(3):
                result = worker.run(new_job(), ["sleep", "0.1"], slots=count, wait_s=60)
                assert result.rc["code"] == 0

        threads = [threading.Thread(target=run, args=(w, n)) for w in workers for n in (1, 2, 4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        stop.set()
        watcher.join()
        assert max(most) <= 4
        assert self.used(workers[0]) == 0

    def test_two_jobs_at_once_are_on_different_cpus(self, worker):
        first, second = new_job(), new_job()
        script = ["sh", "-c", "grep Cpus_allowed_list /proc/self/status; sleep 0.5"]
        worker.start(first, script)
        worker.start(second, script)
        assert worker.follow(first).stdout != worker.follow(second).stdout or len(os.sched_getaffinity(0)) == 1

    def test_sq_09_the_end_of_the_job_frees_them_whatever_it_leaves(self, worker, job):
        worker.run(job, ["sh", "-c", "setsid sleep 1000 & exit 0"], slots=4)
        assert self.used(worker) == 0

    def test_returning_holds_none_but_the_root_stays_held(self, root):
        root.run("echo x > a", timeout_s=60)
        assert self.used(root.worker) == 0
        with pytest.raises(WorkerRefused, match="busy"):
            root.worker.request("prepare", {"job": new_job(), "slots": 1, "roots": [{"key": root.key}], "wait_s": 0.1})

    def test_what_is_prepared_and_never_started_is_freed_by_release_and_by_the_end_of_serve(self, make_worker):
        worker, other = make_worker(), make_worker()
        job = new_job()
        worker.request("prepare", {"job": job, "slots": 3, "roots": [{"key": "ab" * 16}]})
        assert self.used(other) == 3
        worker.request("release", {"job": job})
        assert self.used(other) == 0
        worker.request("prepare", {"job": job, "slots": 3, "roots": [{"key": "ab" * 16}]})
        worker.kill()
        assert self.used(other) == 0
        other.request("prepare", {"job": new_job(), "slots": 4, "roots": [{"key": "ab" * 16}]})

    def test_prepare_is_idempotent(self, worker, job):
        first = worker.request("prepare", {"job": job, "slots": 2, "roots": []}).fields["slots"]
        assert worker.request("prepare", {"job": job, "slots": 2, "roots": []}).fields["slots"] == first
        assert self.used(worker) == 2

    def test_busy_keeps_nothing(self, make_worker):
        worker, other = make_worker(), make_worker()
        worker.request("prepare", {"job": new_job(), "slots": 4, "roots": []})
        with pytest.raises(WorkerRefused, match="busy"):
            other.request("prepare", {"job": new_job(), "slots": 1, "roots": [{"key": "cd" * 16}], "wait_s": 0.2})
        worker.request("prepare", {"job": new_job(), "slots": 0, "roots": [{"key": "cd" * 16}], "wait_s": 0.0})

    def test_a_waiting_prepare_gets_what_becomes_free(self, worker):
        first, second = new_job(), new_job()
        worker.request("prepare", {"job": first, "slots": 4, "roots": []})
        waiting = worker.submit("prepare", {"job": second, "slots": 2, "roots": [], "wait_s": 30})
        time.sleep(0.2)
        assert not waiting.done()
        worker.request("release", {"job": first})
        answer = waiting.result(30).fields
        assert len(answer["slots"]) == 2
        assert answer["waited_s"] >= 0.1

    def test_a_release_while_it_waits_leaves_nothing_taken(self, worker):
        first, second = new_job(), new_job()
        worker.request("prepare", {"job": first, "slots": 4, "roots": []})
        waiting = worker.submit("prepare", {"job": second, "slots": 2, "roots": [], "wait_s": 30})
        time.sleep(0.2)
        worker.request("release", {"job": second})
        worker.request("release", {"job": first})
        assert waiting.result(30).fields["error"] == "busy"
        assert self.used(worker) == 0

    def test_two_roots_in_either_order_do_not_wait_for_each_other(self, make_worker):
        workers = [make_worker(), make_worker()]
        keys = ["aa" * 16, "bb" * 16]

        def work(worker, order):
            for _ in range(10):
                job = new_job()
                roots = [{"key": key} for key in order]
                worker.request("prepare", {"job": job, "slots": 1, "roots": roots, "wait_s": 30})
                worker.request("release", {"job": job})

        threads = [threading.Thread(target=work, args=(w, o)) for w, o in zip(workers, (keys, keys[::-1]), strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
