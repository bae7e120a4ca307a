"""The index of a root: kept in memory between requests, and never believed longer than the file that it was."""

import os

import pytest

from rch.worker import _index
from rch.worker._index import Row


def rows(*names, content="a"):
    return {name: Row("f", 0o644, 1, 2, content, (33188, 1, 2, 3, number)) for number, name in enumerate(names)}


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(_index, "_kept", {})
    return str(tmp_path / "index")


class TestAKeptIndex:
    def test_is_not_read_again(self, path):
        _index.save(path, "g1", rows("a"))
        first = _index.load(path)
        assert first == ("g1", rows("a"))
        assert _index.load(path)[1] is first[1]

    def test_comes_back_from_the_file_as_it_was(self, path):
        _index.save(path, "g1", rows("a", "b"))
        _index._kept.clear()
        generation, found = _index.load(path)
        assert (generation, found) == ("g1", rows("a", "b"))
        assert isinstance(found["a"], Row)
        assert _index.load(path)[1] is found

    def test_does_not_count_once_another_process_has_written_one(self, path):
        _index.save(path, "g1", rows("a"))
        _index.save(path + "-theirs", "g2", rows("b"))
        os.replace(path + "-theirs", path)
        assert _index.load(path) == ("g2", rows("b"))

    def test_does_not_outlive_its_file(self, path):
        _index.save(path, "g1", rows("a"))
        with open(path, "wb") as file:
            file.write(b"damaged")
        assert _index.load(path) is None
        os.unlink(path)
        assert _index.load(path) is None

    def test_is_bounded(self, path, monkeypatch):
        monkeypatch.setattr(_index, "_KEPT_ROWS", 3)
        for number in range(3):
            _index.save(f"{path}{number}", "g", rows("a", "b"))
        assert list(_index._kept) == [f"{path}2"]
        _index.save(path, "g", rows(*"abcd"))
        assert _index._kept == {}
        assert _index.load(path) == ("g", rows(*"abcd"))
