"""How long a project stays here because it was red there and green here."""

import time
from dataclasses import replace

import pytest

from rch.daemon.portability import MARK_S, Portability
from rch.daemon.store import Mark, Store
from rch.fleet.toolchains import equipment
from rch.schedule.choose import WorkerView

CSS = WorkerView("css", worker_class="debian-12", equipment="e1")
YTO = WorkerView("yto", worker_class="debian-12", equipment="e2")
FED = WorkerView("fed", worker_class="fedora-40", equipment="e3")
MARK = Mark("p", "debian-12", "css", "e1", "needs libfoo")


@pytest.fixture
def store(tmp_path):
    found = Store(str(tmp_path / "db"))
    yield found
    found.close()


def marked(store, *views):
    return [view.name for view in Portability(store).judged("p", views) if view.unportable]


class TestAMark:
    def test_holds_for_every_worker_of_its_class_and_no_other_project(self, store):
        store.mark_unportable(MARK)
        assert marked(store, CSS, YTO, FED) == ["css", "yto"]
        assert not any(view.unportable for view in Portability(store).judged("q", [CSS]))

    def test_goes_when_the_worker_that_was_red_has_other_packages_or_toolchains(self, store):
        store.mark_unportable(MARK)
        assert marked(store, replace(CSS, equipment="e4"), YTO) == []
        assert marked(store, CSS) == []  # for good, not for this once

    def test_holds_on_while_that_worker_is_out_of_the_inventory(self, store):
        store.mark_unportable(MARK)
        assert marked(store, YTO) == ["yto"]

    def test_is_tried_again_after_a_week(self, store):
        store.mark_unportable(replace(MARK, marked=time.time() - MARK_S + 60))
        assert marked(store, CSS) == ["css"]
        store.mark_unportable(replace(MARK, marked=time.time() - MARK_S - 60))
        assert marked(store, CSS) == []

    def test_can_be_taken_away(self, store):
        store.mark_unportable(MARK)
        assert Portability(store).forget() == 1
        assert marked(store, CSS) == []


class TestTheEquipmentOfAWorker:
    FACTS = {  # noqa: RUF012
        "os": {"id": "debian", "version_id": "12"},
        "machine": "x86_64",
        "packages": "a1",
        "toolchains": {"c": [{"identity": "gcc 12"}], "rust": [{"identity": "rustc 1.95"}]},
        "disk_free_bytes": 1,
    }

    @pytest.mark.parametrize(
        "change",
        [
            {"packages": "b2"},
            {"os": {"id": "debian", "version_id": "13"}},
            {"toolchains": {"c": [{"identity": "gcc 12"}]}},
            {"toolchains": {"c": [{"identity": "gcc 13"}], "rust": [{"identity": "rustc 1.95"}]}},
        ],
    )
    def test_changes_with_packages_system_and_toolchains(self, change):
        assert equipment({**self.FACTS, **change}) != equipment(self.FACTS)

    def test_is_not_what_changes_by_the_minute(self):
        assert equipment({**self.FACTS, "disk_free_bytes": 2, "boot_id": "x"}) == equipment(self.FACTS)

    def test_of_a_worker_nobody_knows_is_a_word_too(self):
        assert equipment({}) == equipment({"toolchains": "none"})
