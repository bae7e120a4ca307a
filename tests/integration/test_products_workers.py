"""Two workers, local builds in between, cleaned directories: products are always those of the last command."""

import os
import shutil

import pytest

from rch.testing.products import cargo_units, contents, digests, job, make_steps, sent_out, succeeded

LIB = """\
#[cfg(feature = "loud")]
pub const WORD: &str = "LOUD";
#[cfg(not(feature = "loud"))]
pub const WORD: &str = "quiet";
"""


@pytest.fixture
def crate(tmp_path):
    """A package whose binary says how it was built; no dependencies."""
    place = tmp_path / "crate"
    (place / "src").mkdir(parents=True)
    (place / "Cargo.toml").write_text(
        '[package]\nname = "says"\nversion = "0.1.0"\nedition = "2021"\n[features]\nloud = []\n[workspace]\n'
    )
    (place / "src" / "lib.rs").write_text(LIB)
    (place / "src" / "main.rs").write_text('fn main() { println!("{} 1", says::WORD); }\n')
    return str(place)


class Says:
    """Builds by cargo, here or there, and what the binary in place then says."""

    def __init__(self, state, place):
        self.state, self.place = state, place
        self.environment = {}

    def there(self, worker, *features):
        words = ("cargo", "build", *(f"--features={name}" for name in features))
        sent_out(self.state, *words, cwd=self.place, options=("--worker", worker))
        assert job(self.state)["worker"] == worker
        return self.now()

    def here(self, *features):
        succeeded(self.state.run("cargo", "build", *(f"--features={name}" for name in features), cwd=self.place))
        return self.now()

    def nothing_to_do(self, *features):
        words = ("cargo", "build", "-v", *(f"--features={name}" for name in features))
        return cargo_units(succeeded(self.state.run(*words, cwd=self.place)), "Compiling") == []

    def now(self):
        return succeeded(self.state.run(os.path.join(self.place, "target/debug/says"))).strip()

    def write(self, number):
        with open(os.path.join(self.place, "src/main.rs"), "w") as file:
            file.write(f'fn main() {{ println!("{{}} {number}", says::WORD); }}\n')


@pytest.fixture
def says(pair_state, crate):
    return Says(pair_state, crate)


class TestTheProductsAreThoseOfTheLastCommand:
    def test_ar_04_one_worker_then_another_with_other_features_then_the_first_again(self, says):
        assert says.there("lab1") == "quiet 1"
        assert says.there("lab2", "loud") == "LOUD 1"
        assert says.nothing_to_do("loud")
        assert says.there("lab1") == "quiet 1"
        assert says.nothing_to_do()
        assert says.there("lab2", "loud") == "LOUD 1"
        assert says.there("lab2") == "quiet 1"
        assert says.there("lab1") == "quiet 1"
        assert says.nothing_to_do()

    def test_the_build_directory_was_removed(self, says):
        assert says.there("lab1") == "quiet 1"
        shutil.rmtree(os.path.join(says.place, "target"))
        assert says.there("lab1") == "quiet 1"
        assert says.nothing_to_do()
        shutil.rmtree(os.path.join(says.place, "target"))
        assert says.there("lab2", "loud") == "LOUD 1"
        assert says.nothing_to_do("loud")
        os.unlink(os.path.join(says.place, "target/debug/says"))
        assert says.there("lab2", "loud") == "LOUD 1"
        assert says.nothing_to_do("loud")

    def test_a_build_here_in_between(self, says):
        assert says.there("lab1") == "quiet 1"
        assert says.here("loud") == "LOUD 1"
        assert says.there("lab1") == "quiet 1"
        assert says.nothing_to_do()
        says.write(2)
        assert says.here() == "quiet 2"
        assert says.there("lab1") == "quiet 2"
        assert says.there("lab2") == "quiet 2"
        assert says.nothing_to_do()

    def test_a_local_fallback_in_between(self, says):
        assert says.there("lab1") == "quiet 1"
        says.write(2)
        for worker in says.state.lab.workers.values():
            worker.unplug()
        try:
            text = succeeded(says.state.exec("cargo", "build", "--features=loud", cwd=says.place, timeout_s=60))
            assert "[rch] local" in text
            assert says.now() == "LOUD 2"
        finally:
            for worker in says.state.lab.workers.values():
                worker.plug_in()
        succeeded(says.state.run("rch", "workers", "probe"))
        assert says.there("lab1") == "quiet 2"
        assert says.nothing_to_do()

    def test_a_file_was_put_back_to_an_older_state(self, says):
        assert says.there("lab1") == "quiet 1"
        main = os.path.join(says.place, "src/main.rs")
        old = os.stat(main)
        with open(main) as file:
            saved = file.read()
        says.write(2)
        assert says.there("lab1") == "quiet 2"
        with open(main, "w") as file:
            file.write(saved)
        os.utime(main, ns=(old.st_atime_ns, old.st_mtime_ns))  # as `git checkout` does not, but `cp -p` and tar do
        assert says.there("lab1") == "quiet 1"
        assert says.there("lab2") == "quiet 1"


class TestNoCache:
    def test_a_12_builds_in_a_fresh_directory_there_filled_from_here_alone(self, says):
        def compiled(*options):
            text = sent_out(says.state, "cargo", "build", "-v", cwd=says.place, options=("--worker", "lab1", *options))
            return cargo_units(text, "Compiling")

        assert compiled() == ["says"]
        assert compiled() == []
        assert compiled("--no-cache") == ["says"]
        assert says.now() == "quiet 1"
        assert says.nothing_to_do()
        assert compiled() == []


class TestMakeClean:
    def test_and_make_there_is_a_whole_build(self, pair_state, project_copy):
        place = project_copy("hello-c")
        sources = contents(place)
        sent_out(pair_state, "make", cwd=place, options=("--worker", "lab1"))
        built = digests(place, ["hello"])
        sent_out(pair_state, "make", "clean", cwd=place, options=("--worker", "lab1"))
        assert contents(place) == sources
        steps = make_steps(sent_out(pair_state, "make", cwd=place, options=("--worker", "lab1")))
        assert "main.o" in steps
        assert digests(place, ["hello"]) == built

    def test_here_and_make_there_is_a_whole_build(self, pair_state, project_copy):
        place = project_copy("hello-c")
        for worker in ("lab1", "lab2", "lab1"):
            steps = make_steps(sent_out(pair_state, "make", cwd=place, options=("--worker", worker)))
            assert "main.o" in steps
            succeeded(pair_state.run("make", "clean", cwd=place))

    def test_on_one_worker_and_make_on_the_other(self, pair_state, project_copy):
        place = project_copy("hello-c")
        sources = contents(place)
        sent_out(pair_state, "make", cwd=place, options=("--worker", "lab1"))
        sent_out(pair_state, "make", "clean", cwd=place, options=("--worker", "lab2"))
        assert contents(place) == sources
        sent_out(pair_state, "make", cwd=place, options=("--worker", "lab1"))
        assert succeeded(pair_state.run("./hello", cwd=place)).startswith("Hello")
        assert succeeded(pair_state.run("make", cwd=place)) == "make: 'hello' is up to date.\n"
