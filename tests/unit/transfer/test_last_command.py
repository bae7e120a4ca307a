"""The products here are always those of the last command (lessons AR-02, AR-10)."""

from __future__ import annotations

import os
import shutil

import pytest

from rch.transfer import BuildDir


@pytest.fixture
def cargo(put):
    """A build that behaves as cargo does: it compiles what is not fresh, and uplifts the result."""

    def build(features=""):
        def job(tree):
            source = (tree / "src/main.rs").read_text()
            print_ = tree / "target/debug/.fingerprint/app"
            wanted = f"{source}|{features}"
            output = tree / "target/debug/deps/app"
            if not (print_.exists() and print_.read_text() == wanted and output.exists()):
                put(tree, "target/debug/deps/app", f"binary of {wanted}", 0o755)
                put(tree, "target/debug/.fingerprint/app", wanted)
            uplifted = tree / "target/debug/app"
            if uplifted.exists():
                uplifted.unlink()
            os.link(output, uplifted)

        return job

    return build


def binary(world):
    return (world.here / "target/debug/app").read_text()


class TestProductsOfTheLastCommand:
    def test_ar_10_s0_on_w1_then_s1_on_w2_then_s0_on_w1(self, world, cargo):
        world.write("src/main.rs", "S0")
        world.run(cargo(), "w1")
        world.write("src/main.rs", "S1")
        world.run(cargo(), "w2")
        assert binary(world) == "binary of S1|"
        world.write("src/main.rs", "S0")
        returned = world.run(cargo(), "w1")
        assert binary(world) == "binary of S0|"
        assert returned.files > 0

    def test_ar_10_other_features_on_another_worker_do_not_stay(self, world, cargo):
        world.write("src/main.rs", "S0")
        world.run(cargo(), "w1")
        world.run(cargo("x"), "w2")
        assert binary(world) == "binary of S0|x"
        world.run(cargo(), "w1")
        assert binary(world) == "binary of S0|"

    def test_ar_10_rm_rf_target_makes_the_warm_worker_build_again(self, world, cargo):
        world.write("src/main.rs", "S0")
        world.run(cargo())
        shutil.rmtree(world.here / "target")
        world.push()
        assert not (world.worker().tree / "target").exists()
        world.work(cargo())
        world.fetch()
        assert binary(world) == "binary of S0|"

    def test_ar_10_a_local_build_in_between_does_not_survive_the_next_remote_one(self, world, cargo):
        world.write("src/main.rs", "S0")
        world.run(cargo())
        world.write("src/main.rs", "S1")
        cargo("local")(world.here)
        assert binary(world) == "binary of S1|local"
        world.write("src/main.rs", "S0")
        world.run(cargo())
        assert binary(world) == "binary of S0|"

    def test_ar_10_make_clean_and_make(self, make_world, tmp_path, put):
        world = make_world(tmp_path, build_dirs=())
        world.write("main.c", "int main;")

        def make(tree):
            put(tree, "obj/main.o", "object of " + (tree / "main.c").read_text())
            put(tree, "hello", "program of " + (tree / "main.c").read_text(), 0o755)

        def clean(tree):
            shutil.rmtree(tree / "obj")
            (tree / "hello").unlink()

        world.run(make)
        assert (world.here / "hello").read_text() == "program of int main;"
        world.run(clean)
        assert not (world.here / "hello").exists()
        assert not (world.here / "obj").exists()
        world.write("main.c", "int other;")
        world.run(make)
        assert (world.here / "hello").read_text() == "program of int other;"

    def test_ar_10_what_was_built_under_no_return_still_comes_when_it_is_wanted(self, world, cargo):
        world.write("src/main.rs", "S0")
        world.run(cargo(), policy=BuildDir.NONE)
        assert not (world.here / "target").exists()
        returned = world.run(cargo(), policy=BuildDir.FULL)
        assert binary(world) == "binary of S0|"
        assert returned.files > 0

    def test_ar_02_a_file_deleted_by_a_job_that_returned_nothing_goes_with_the_next_return(self, world, cargo, put):
        world.write("src/main.rs", "S0")
        world.run(lambda tree: put(tree, "target/old", "x"))
        world.run(lambda tree: (tree / "target/old").unlink(), policy=BuildDir.NONE)
        assert (world.here / "target/old").exists()
        world.run(cargo())
        assert not (world.here / "target/old").exists()

    def test_ar_02_a_product_deleted_here_does_not_come_back(self, world, put):
        world.write("a", "1")
        world.run(lambda tree: (put(tree, "target/x", "x"), put(tree, "gen/y", "y")))
        (world.here / "target/x").unlink()
        (world.here / "gen/y").unlink()
        world.run(lambda tree: None)
        assert not (world.here / "target/x").exists()
        assert not (world.here / "gen/y").exists()

    def test_ar_07_a_job_with_nothing_to_do_moves_nothing(self, world, cargo, look):
        world.write("src/main.rs", "S0")
        world.run(cargo())
        before = look(world.here)
        calls = len(world.worker().calls)
        returned = world.run(lambda tree: None)
        assert (returned.files, returned.size_bytes, returned.processes) == (0, 0, 0)
        assert [op for op, _ in world.worker().calls[calls:]] == ["prepare", "delta"]
        assert look(world.here) == before

    def test_ar_07_none_leaves_the_build_directory_byte_identical(self, world, cargo, look):
        world.write("src/main.rs", "S0")
        world.run(cargo())
        before = look(world.here)
        world.write("src/main.rs", "S1")
        world.run(cargo(), policy=BuildDir.NONE)
        after = look(world.here)
        assert {p: e for p, e in after.items() if p.startswith("target")} == {
            p: e for p, e in before.items() if p.startswith("target")
        }

    def test_hard_links_of_the_worker_are_hard_links_here(self, world, cargo):
        world.write("src/main.rs", "S0")
        world.run(cargo())
        assert os.path.samefile(world.here / "target/debug/app", world.here / "target/debug/deps/app")

    def test_sp_11_one_edit_costs_no_rsync_and_two_requests(self, world, cargo):
        world.write("src/main.rs", "S0")
        world.run(cargo())
        world.write("src/main.rs", "S1")
        calls = len(world.worker().calls)
        returned = world.run(cargo())
        assert [op for op, _ in world.worker().calls[calls:]] == ["prepare", "delta"]
        assert world.worker().sent_by_rsync == world.worker().received_by_rsync == []
        assert returned.processes == 0
