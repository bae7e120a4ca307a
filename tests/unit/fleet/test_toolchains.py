"""Toolchains are read out of facts that a worker made up, if it likes."""

import pytest

from rch.fleet.toolchains import binds, identities, rust_targets, shown, worker_class

FACTS = {
    "machine": "x86_64",
    "os": {"id": "debian", "version_id": "12"},
    "toolchains": {
        "rust": [
            {"identity": "rustc 1\nhost: x", "shown": "rustc 1", "binds": {"/home/a/.rustup": "/c/1"}},
            {"identity": "rustc 1\nhost: x", "binds": {"/home/b/.rustup": "/c/2"}},
            {"identity": "rustc 2", "binds": {"/home/a/.rustup": "/c/3"}},
        ],
        "c": [{"identity": "gcc 12"}],
    },
}


class TestToolchains:
    def test_are_told_apart_by_identity(self):
        assert identities(FACTS) == {"rust": frozenset({"rustc 1\nhost: x", "rustc 2"}), "c": frozenset({"gcc 12"})}

    def test_of_several_workstations_are_bound_at_the_paths_of_each(self):
        found = binds(FACTS, "rust", "rustc 1\nhost: x")
        assert found == {"/home/a/.rustup": "/c/1", "/home/b/.rustup": "/c/2"}

    def test_without_binds_lie_at_the_same_path(self):
        assert binds(FACTS, "c", "gcc 12") == {}
        assert binds(FACTS, "rust", "rustc 9") == {}

    def test_b_07_of_one_compiler_at_two_places_have_the_targets_of_both(self):
        rows = [{"identity": "r", "targets": ["a", "b", 3]}, {"identity": "r", "targets": ["b", "c"]}]
        assert rust_targets({"toolchains": {"rust": [*rows, {"identity": "s"}]}}) == {"r": frozenset({"b"})}

    def test_are_shown_in_short(self):
        assert shown(FACTS) == {"rust": "rustc 1, rustc 2", "c": "gcc 12"}

    @pytest.mark.parametrize(
        "odd",
        [
            {},
            {"toolchains": 3},
            {"toolchains": {"rust": "x"}},
            {"toolchains": {"rust": [3, {"identity": 3}, {"identity": "r", "binds": ["/x"]}]}},
            {"toolchains": {"rust": [{"identity": "r", "binds": {"relative": "/x", "/y": 3, "/z": "up"}}]}},
        ],
    )
    def test_that_are_odd_count_as_absent(self, odd):
        assert binds(odd, "rust", "r") == {}


def test_the_class_of_a_worker_is_its_distribution_and_machine():
    assert worker_class(FACTS) == "debian-12-x86_64"
    assert worker_class({"os": "linux"}) == "unknown"
