import pytest

from rch.testing.worker_process import WorkerProcess
from rch.testing.worker_root import WorkerRoot, new_job
from rch.worker import protocol


@pytest.fixture
def make_worker(tmp_path):
    """Real rch-wkr processes; all of them end with the test."""
    made = []

    def make(cache=None, **more):
        worker = WorkerProcess(str(cache or tmp_path / "cache"), **{"slots": 4, **more})
        made.append(worker)
        return worker

    yield make
    for worker in made:
        worker.close()


@pytest.fixture
def worker(make_worker):
    worker = make_worker()
    worker.request("hello", {"protocol": protocol.PROTOCOL, "client": "test", "compression": ["none"]})
    return worker


@pytest.fixture
def job():
    return new_job()


@pytest.fixture
def root(worker):
    made = WorkerRoot(worker)
    made.hold()
    return made
