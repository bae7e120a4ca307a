"""Projects on mounts of their own: a full one, and one in the middle of the tree. Real file systems, in a namespace."""

from __future__ import annotations

import ctypes
import os
import sys
import traceback

import pytest

from rch.errors import DiskFull

CLONE_NEWNS, CLONE_NEWUSER, MS_REC, MS_PRIVATE = 0x20000, 0x10000000, 0x4000, 1 << 18
NO_NAMESPACES = 77


def enter_namespace():
    """A mount namespace of this process alone; as an ordinary user inside a user namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNS | CLONE_NEWUSER) != 0:
        os._exit(NO_NAMESPACES)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as stream:
            stream.write(text)
    assert libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) == 0

    def mount(path, size):
        options = f"size={size}".encode()
        assert libc.mount(b"none", os.fsencode(path), b"tmpfs", 0, options) == 0, os.strerror(ctypes.get_errno())

    return mount


@pytest.fixture
def in_namespace():
    """Run a function with ``mount(path, size)`` in a child process; its failures are this test's."""

    def run(story):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                story(enter_namespace())
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == NO_NAMESPACES:
            pytest.skip("user namespaces are off here; runs on every machine that can be a worker")
        assert status == 0

    return run


class TestAFullDisk:
    def test_ar_01_under_the_project_leaves_every_file_as_it_was(self, world, put, look, in_namespace):
        def story(mount):
            mount(world.here, "2m")
            world.write("src/a", "1")
            world.run(lambda tree: put(tree, "target/0", "old" * 1000))
            world.push()
            world.work(lambda tree: [put(tree, f"target/{n}", str(n) * 400_000) for n in range(8)])
            before = look(world.here)
            try:
                world.fetch()
            except DiskFull as full:
                assert full.host == "here"
                assert str(world.here) in full.message
            else:
                raise AssertionError("it fitted")
            assert look(world.here) == before
            leftovers = [
                p for p in (world.base / "state/roots").rglob("*") if "staging" in p.name or p.name == "journal"
            ]
            assert leftovers == []
            # and once there is room, the same return completes
            world.write("src/a", "1")
            world.work(lambda tree: [(tree / f"target/{n}").unlink() for n in range(3, 8)])
            world.fetch()
            assert (world.here / "target/2").read_text() == "2" * 400_000

        in_namespace(story)

    def test_ar_01_under_the_state_directory_is_noticed_before_anything_is_fetched(
        self, world, put, look, in_namespace
    ):
        def story(mount):
            world.write("src/a", "1")
            (world.base / "state").mkdir()
            mount(world.base / "state", "1m")
            world.push()
            world.work(lambda tree: put(tree, "target/x", "x" * 2_000_000))
            before = look(world.here)
            try:
                world.fetch()
            except DiskFull as full:
                assert full.host == "here"
            else:
                raise AssertionError("it fitted")
            assert look(world.here) == before
            assert world.worker().received_by_rsync == []

        in_namespace(story)


class TestAMountInTheMiddle:
    @pytest.mark.parametrize("place", ["target", "sub", "target/debug"])
    def test_ar_11_gets_its_files_by_rename_within_itself(self, world, put, look, in_namespace, place):
        def story(mount):
            world.write("src/a", "1")
            (world.here / place).mkdir(parents=True)
            mount(world.here / place, "1m")

            def job(tree):
                put(tree, f"{place}/x", "new", 0o755)
                put(tree, "target/y", "y")
                (tree / place / "link").symlink_to("x")
                os.utime(tree / place / "x", ns=(5, 1_600_000_000_123_456_789))

            world.run(lambda tree: put(tree, f"{place}/x", "old"))
            world.run(job)
            assert (world.here / place / "x").read_text() == "new"
            assert (world.here / place / "x").stat().st_mtime_ns == 1_600_000_000_123_456_789
            assert (world.here / place / "x").stat().st_mode & 0o777 == 0o755
            assert os.readlink(world.here / place / "link") == "x"
            assert (world.here / "target/y").read_text() == "y"
            assert [p for p in look(world.here) if ".rch-" in p] == []

        in_namespace(story)
