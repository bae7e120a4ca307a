"""Questions to git answer in a job as they answer here (transfer.git = head)."""

import os
import subprocess

import pytest

from rch.testing.products import sent_out, text_of

QUESTIONS = "git rev-parse HEAD; git describe --tags --dirty --always; git log -1 --format=%H%n%an%n%s%n%ct; git rev-parse --show-toplevel"


def git(place, *words):
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    for who in ("AUTHOR", "COMMITTER"):
        env |= {f"GIT_{who}_NAME": "A Person", f"GIT_{who}_EMAIL": "person@example.org"}
    # Submodules come by their path here; git asks for this word since 2.38.
    words = ("-c", "protocol.file.allow=always", *words)
    return subprocess.run(["git", *words], cwd=place, env=env, check=True, capture_output=True, timeout=60)


@pytest.fixture
def origin(tmp_path):
    place = tmp_path / "origin"
    place.mkdir()
    git(place, "init", "-q", "-b", "main")
    (place / "Makefile").write_text(f"all:\n\t@{QUESTIONS}\n")
    git(place, "add", ".")
    git(place, "commit", "-q", "-m", "first")
    git(place, "tag", "-a", "v1.0", "-m", "one")
    (place / "file").write_text("x\n")
    git(place, "add", ".")
    git(place, "commit", "-q", "-m", "second é")
    return place


def same_answers(state, place):
    there = sent_out(state, "make", "-s", cwd=str(place))
    here = text_of(subprocess.run(["make", "-s"], cwd=place, capture_output=True, check=True, timeout=60))
    assert there == here
    return here


class TestGitAnswers:
    def test_in_a_clone_clean_and_dirty(self, any_state, origin, tmp_path):
        place = tmp_path / "clone"
        git(tmp_path, "clone", "-q", str(origin), str(place))
        assert "v1.0-1-g" in same_answers(any_state, place)
        (place / "file").write_text("changed\n")
        assert "-dirty" in same_answers(any_state, place)
        git(place, "commit", "-q", "-a", "-m", "third")
        git(place, "tag", "-a", "v2.0", "-m", "two")
        answers = same_answers(any_state, place)
        assert "\nv2.0\n" in answers
        assert "dirty" not in answers

    def test_in_a_linked_worktree(self, rch_state, origin, tmp_path):
        place = tmp_path / "linked tree"
        git(origin, "worktree", "add", "-q", "-b", "topic", str(place))
        (place / "file").write_text("topic\n")
        git(place, "commit", "-q", "-a", "-m", "on the topic")
        assert "on the topic" in same_answers(rch_state, place)

    def test_in_a_submodule(self, rch_state, origin, tmp_path):
        above = tmp_path / "above"
        above.mkdir()
        git(above, "init", "-q", "-b", "main")
        git(above, "submodule", "--quiet", "add", str(origin), "sub")
        (above / "Makefile").write_text(f"all:\n\t@{QUESTIONS}; cd sub && {QUESTIONS}; git submodule status\n")
        git(above, "add", ".")
        git(above, "commit", "-q", "-m", "above")
        assert "above" in same_answers(rch_state, above)
        same_answers(rch_state, above / "sub")

    def test_a_job_leaves_the_repository_here_alone(self, rch_state, origin):
        before = text_of(git(origin, "rev-parse", "HEAD", "v1.0"))
        same_answers(rch_state, origin)
        assert text_of(git(origin, "rev-parse", "HEAD", "v1.0")) == before
        assert git(origin, "fsck", "--strict").returncode == 0
        assert git(origin, "status", "--porcelain").stdout == b""
