"""A worker whose clock is off: up to a second nothing is built in vain and nothing stays stale; above, it is refused."""

import os
import subprocess
import time

import pytest

from rch.testing.products import cargo_units, job, make_steps, sent_out, succeeded, text_of

MS = 1_000_000


@pytest.fixture
def set_clock(embedded_worker):
    """Set the worker's clock off by so many ns: its sessions end, and new ones see the new time."""

    def set_to(offset_ns):
        embedded_worker.unplug()
        embedded_worker.session_environment["RCH_WKR_CLOCK_OFFSET_NS"] = str(offset_ns)
        embedded_worker.plug_in()

    yield set_to
    embedded_worker.unplug()
    embedded_worker.session_environment.clear()
    embedded_worker.plug_in()


class Maker:
    """examples/hello-c by make: what was built, there and here."""

    def __init__(self, state, place):
        self.state, self.place = state, place
        self.source = os.path.join(place, "greet.c")

    def there(self):
        return make_steps(sent_out(self.state, "make", cwd=self.place))

    def here(self):
        return make_steps(succeeded(self.state.run("make", cwd=self.place)))

    def says(self):
        return succeeded(self.state.run("./hello", cwd=self.place)).splitlines()[0]

    def write(self, word, times_ns=None):
        with open(self.source) as file:
            text = file.read()
        new = text.replace(self.word(text), f"/*{word}*/") if "/*W" in text else text + f"/*{word}*/\n"
        with open(self.source, "w") as file:
            file.write(new)
        if times_ns is not None:
            os.utime(self.source, ns=(times_ns, times_ns))

    def word(self, text):
        start = text.index("/*W")
        return text[start : text.index("*/", start) + 2]

    rebuilt = ["greet.o", "hello"]  # noqa: RUF012


class Cargo:
    """A package of one file by cargo."""

    rebuilt = ["says"]  # noqa: RUF012

    def __init__(self, state, place):
        self.state, self.place = state, str(place)
        (place / "src").mkdir(parents=True)
        (place / "Cargo.toml").write_text(
            '[package]\nname = "says"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\n'
        )
        self.source = str(place / "src" / "main.rs")
        self.write("W0")

    def there(self):
        return cargo_units(sent_out(self.state, "cargo", "build", "-v", cwd=self.place), "Compiling")

    def here(self):
        text = succeeded(self.state.run("cargo", "build", "-v", cwd=self.place))
        return [line for line in text.splitlines() if "Dirty" in line] or cargo_units(text, "Compiling")

    def says(self):
        return succeeded(self.state.run("target/debug/says", cwd=self.place)).strip()

    def write(self, word, times_ns=None):
        with open(self.source, "w") as file:
            file.write(f'fn main() {{ println!("{word}"); }}\n')
        if times_ns is not None:
            os.utime(self.source, ns=(times_ns, times_ns))


@pytest.fixture(params=["make", "cargo"])
def builder(request, rch_state, project_copy, tmp_path):
    if request.param == "make":
        return Maker(rch_state, project_copy("hello-c"))
    return Cargo(rch_state, tmp_path / "says")


class TestUpToASecond:
    @pytest.mark.parametrize("offset_ms", [500, -500, 50, -50])
    def test_pm_04_nothing_is_built_in_vain_and_nothing_is_stale(self, builder, set_clock, offset_ms):
        set_clock(offset_ms * MS)
        builder.write("W1")
        assert set(builder.rebuilt) <= set(builder.there())
        assert builder.here() == []
        assert builder.there() == []
        builder.write("W2")  # at once: the products' times must not lie behind it
        assert builder.there() == builder.rebuilt
        assert builder.here() == []
        builder.write("W3")
        assert builder.here()
        if isinstance(builder, Cargo):
            assert builder.says() == "W3"

    def test_pm_05_an_edit_dated_two_minutes_back_is_built(self, builder):
        builder.write("W1")
        builder.there()
        builder.write("W2", times_ns=time.time_ns() - 120_000 * MS)
        assert builder.there() == builder.rebuilt
        if isinstance(builder, Cargo):
            assert builder.says() == "W2"
        assert builder.there() == []
        assert builder.here() == []

    def test_an_edit_while_the_build_runs_is_built_next(self, rch_state, set_clock, tmp_path):
        set_clock(500 * MS)
        cargo = Cargo(rch_state, tmp_path / "says")
        with open(os.path.join(cargo.place, "build.rs"), "w") as file:
            # A script that names its inputs: one that does not may run once more after a bump (lessons PM-05).
            file.write('fn main() { println!("cargo:rerun-if-changed=build.rs");')
            file.write(" std::thread::sleep(std::time::Duration::from_secs(2)); }\n")
        process = subprocess.Popen(
            ["rch", "exec", "--require-remote", "--", "cargo", "build"], cwd=cargo.place, env=rch_state.environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        while b"Compiling" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(0.5)
        cargo.write("W9")
        process.communicate(timeout=60)
        assert process.returncode == 0
        assert "src/main.rs" in " ".join(cargo.here())
        assert cargo.says() == "W9"
        assert cargo.there() == cargo.rebuilt
        assert cargo.here() == []


class TestAboveASecond:
    @pytest.mark.parametrize("offset_ms", [1500, -60_000])
    def test_pm_04_a_command_that_returns_files_runs_here_and_says_why(self, builder, set_clock, offset_ms):
        set_clock(offset_ms * MS)
        words = ("make",) if isinstance(builder, Maker) else ("cargo", "build")
        text = succeeded(builder.state.exec(*words, cwd=builder.place))
        assert "[rch] local: clock-skew: lab1" in text
        assert job(builder.state)["worker"] == "here"
        refused = builder.state.exec(*words, cwd=builder.place, options=("--require-remote",))
        assert refused.returncode == 103
        assert "clock" in text_of(refused)

    def test_pm_04_a_jump_between_two_jobs_of_a_project_is_refused_once_and_the_next_one_starts_cold(
        self, builder, set_clock
    ):
        set_clock(-600 * MS)
        builder.there()
        set_clock(600 * MS)
        words = ("make",) if isinstance(builder, Maker) else ("cargo", "build")
        text = succeeded(builder.state.exec(*words, cwd=builder.place))
        assert "[rch] local: clock-skew" in text
        assert "moved" in text
        # What the worker built under its old clock is given up there; make's objects are inputs and come from here.
        assert builder.there() == ([] if isinstance(builder, Maker) else builder.rebuilt)
        assert builder.here() == []
        builder.write("W7")
        assert builder.there() == builder.rebuilt
        assert builder.here() == []

    def test_pm_04_a_jump_while_the_job_runs_returns_nothing(self, rch_state, set_clock, project_copy):
        place = project_copy("hello-c")
        with open(os.path.join(place, "Makefile"), "a") as file:
            file.write("\nslow: hello\n\t@echo running; sleep 3\n")
        process = subprocess.Popen(
            ["rch", "exec", "--require-remote", "--", "make", "slow"], cwd=place, env=rch_state.environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        while process.stdout.readline() != b"running\n":
            assert process.poll() is None
        set_clock(5000 * MS)
        _, errors = process.communicate(timeout=90)
        assert process.returncode == 102
        assert b"clock" in errors
        assert not os.path.exists(os.path.join(place, "hello"))
