"""What the caller has to say once the delta is here: it may end the return before anything is placed."""

import os

import pytest

from rch.errors import ProductsUnverified


class TestAdmit:
    def test_pm_04_a_refusal_places_nothing_and_forgets_nothing(self, world):
        def jumped():
            assert world.worker().count("delta") == 1  # it was measured meanwhile: no round trip of its own
            raise ProductsUnverified("its clock moved")

        world.write("a.c", "int a;")
        world.push()
        world.work(lambda tree: (tree / "a.o").write_text("object"))
        held = world.held()
        with pytest.raises(ProductsUnverified, match="clock"):
            world.fetch(admit=jumped)
        assert not os.path.lexists(os.path.join(world.root.real, "a.o"))
        assert world.held() == held

    def test_without_one_everything_comes(self, world):
        asked = []
        world.write("a.c", "int a;")
        world.push()
        world.work(lambda tree: (tree / "a.o").write_text("object"))
        assert world.fetch(admit=lambda: asked.append(1)).files == 1
        assert asked == [1]
