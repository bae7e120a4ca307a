"""./dev demo keeps what it says: six steps, measured, and nothing left behind."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.sshd, pytest.mark.slow]

DEMO = [sys.executable, "-m", "rch.testing.demo"]


@pytest.fixture
def place(lab_place):
    """A directory for the demo on the checkout's disk."""
    return os.path.join(lab_place, "demo")


class TestTheDemo:
    def test_shows_the_first_minute_and_leaves_nothing(self, place):
        done = subprocess.run(
            [*DEMO, "--place", place],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        text = done.stdout
        for number in range(1, 7):
            assert f"[{number}/6] " in text
        assert re.search(r"ansible: ok=\d+ changed=[1-9]\d* failed=0 .* again: changed=0", text)
        assert re.search(r"→ lab1 \(only worker; \d slots?\)", text)
        assert re.search(
            r"pushed \d+ files, [\d.]+ kB, 1 round trip · ran [\d.]+ s · returned \d+ files, .*, verified", text
        )
        assert "local rebuild: nothing to do (make: 'hello' is up to date.)" in text
        assert "local rebuild: nothing to do (cargo: 6 of 6 units Fresh" in text
        assert "rebuilt here: 2 units, there: 2 units" in text
        assert re.search(r"\[6/6\] worker unplugged +cargo build ran here: \[rch\] local: .*lab1", text)
        assert not os.path.exists(place)
        assert not started_below(place)

    def test_that_is_interrupted_leaves_nothing_either(self, place):
        process = subprocess.Popen(
            [*DEMO, "--place", place], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            deadline = time.monotonic() + 60
            while not os.path.exists(f"{place}/lab/lab1/sshd.pid"):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        finally:
            process.kill()
            process.wait(10)
            process.stdout.close()
        assert not os.path.exists(place)
        assert not started_below(place)

    def test_says_so_when_another_one_is_running(self, place):
        os.makedirs(place)
        holder = subprocess.Popen(["flock", place, "sleep", "60"], stdin=subprocess.DEVNULL)
        try:
            time.sleep(0.5)
            done = subprocess.run(
                [*DEMO, "--place", place],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        finally:
            holder.kill()
            holder.wait(10)
        assert done.returncode == 1
        assert "another process has held" in done.stderr


def started_below(place):
    """Command lines of processes that name the demo's directory."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    command = file.read()
            except OSError:
                continue
            if os.fsencode(f"{place}/") in command:
                found.append(command)
    return found
