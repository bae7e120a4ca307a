"""``./dev demo``: the first minute. Every number is measured, every claim is checked; a claim that fails ends it.

Two example projects are copied below ``.lab/demo`` and built there on an embedded worker. All that is left at the end
is what ``./dev setup`` made.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import IO, Any, NoReturn

from rch.errors import Fault, RchError
from rch.testing.lab import LAB_ROOT, EmbeddedLab, drop_lab_root, lock_directory, remove_tree
from rch.testing.lab_provision import CHECKOUT, program

STEPS = 6
PLACE = os.path.join(LAB_ROOT, "demo")
LINE_OF = {"words": "crates/words/src/lib.rs"}


class DemoFailed(RchError):
    """Something that the demo promises did not come out; the message says what was measured instead."""


class Demo:
    """One run: a lab, copies of the examples, and the output on the terminal."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.lab = EmbeddedLab(os.path.join(place, "lab"))
        self.examples = os.path.join(place, "examples")
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RCH_")}
        self.here = {**clean, "CARGO_TERM_COLOR": "never", "LC_ALL": "C.UTF-8"}
        self.there = {**self.here, **self.lab.environment(), "XDG_CONFIG_HOME": os.path.join(place, "config")}

    def run(self) -> None:
        print(
            "rch demo · an embedded worker on this machine: real SSH, real sandbox, nothing outside ./.lab is touched"
        )
        self.environment()
        self.provision()
        self.copy_examples()
        self.c_project()
        self.rust_workspace()
        self.one_line_edited()
        self.worker_unplugged()

    # --- the six steps ---

    def environment(self) -> None:
        started = float(os.environ.get("RCH_DEMO_STARTED") or time.time())
        packages = sum(1 for _ in metadata.distributions())
        tools = []
        for tool in ("rsync", "sshd", "bwrap", "tmux"):
            found = shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
            tools.append(f"{tool} {'✓' if found else '✗'}")
        version = ".".join(map(str, sys.version_info[:2]))
        text = f"python {version}, {packages} packages ({time.time() - started:.0f} s)"
        step(1, "environment", f"{text}   system: {' '.join(tools)}")

    def provision(self) -> None:
        first = self.lab.up()
        again = self.lab.up()
        assert first is not None  # roles were asked for
        assert again is not None
        text = f"ansible: {first.shown()} ({first.seconds:.0f} s)   again: changed={again.count('changed')}"
        step(2, f"provision {self.lab.worker.name}", text)
        check(again.count("changed") == 0, f"the second run of Ansible changed {again.count('changed')} things")

    def c_project(self) -> None:
        project = os.path.join(self.examples, "hello-c")
        step(3, "examples/hello-c", "make -j2")
        self.build(project, "make", "-j2")
        done = self.command(project, "make")
        check("is up to date" in done.stdout, f"the local make had work to do: {done.stdout}")
        say(f"local rebuild: nothing to do ({done.stdout.strip()})")

    def rust_workspace(self) -> None:
        step(4, "examples/workspace", "cargo build")
        self.build(self.workspace, "cargo", "build")
        fresh, units, seconds = self.fresh()
        check(fresh == units > 0, f"the local cargo rebuilt {units - fresh} of {units} units")
        say(f"local rebuild: nothing to do (cargo: {fresh} of {units} units Fresh, {seconds:.2f} s)")

    def one_line_edited(self) -> None:
        self.edit("words", "here")
        fresh, units, _ = self.fresh()
        here = units - fresh
        self.edit("words", "there")
        lines = self.build(self.workspace, "cargo", "build", shown=False)
        there = sum(line.lstrip().startswith("Compiling ") for line in lines)
        fresh, units, _ = self.fresh()
        step(5, "one line edited", f"rebuilt here: {here} units, there: {there} units")
        check(here == there > 0, "the edit rebuilt different things here and there")
        check(fresh == units, f"afterwards the local cargo rebuilt {units - fresh} of {units} units")
        say(f"local rebuild: nothing to do (cargo: {fresh} of {units} units Fresh)")

    def worker_unplugged(self) -> None:
        self.lab.worker.unplug()
        self.edit("words", "unplugged")
        done = self.command(self.workspace, program("rch"), "exec", "--", "cargo", "build", remote=True)
        reason = next((line for line in done.stderr.splitlines() if line.startswith("[rch] ")), "")
        step(6, "worker unplugged", f"cargo build ran here: {reason or 'without a word'}")
        check(reason.startswith("[rch] local:"), f"no reason line: {done.stderr}")
        fresh, units, _ = self.fresh()
        check(fresh == units, f"the build that ran here left {units - fresh} of {units} units to do")

    # --- what the steps are made of ---

    @property
    def workspace(self) -> str:
        return os.path.join(self.examples, "workspace")

    def copy_examples(self) -> None:
        for name in ("hello-c", "workspace", "shared-greeting"):
            shutil.copytree(
                os.path.join(CHECKOUT, "examples", name),
                os.path.join(self.examples, name),
                ignore=shutil.ignore_patterns("target", "build", "*.o", "*.d", "hello", "mkmessages", "messages.h"),
            )
        # A repository of their own, as a project has it; else they would belong to the checkout around them.
        git = ["git", "-c", "user.name=demo", "-c", "user.email=demo@localhost", "-c", "init.defaultBranch=main"]
        for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--no-verify", "--message", "demo"]):
            self.command(self.examples, *git, *words)

    def build(self, project: str, *command: str, shown: bool = True) -> list[str]:
        """Build on the worker, its output live; then one line of numbers from the job's record. Returns the output."""
        lines = self.follow(project, [program("rch"), "exec", "--require-remote", "--", *command], shown=shown)
        job = self.last_job()
        check(job["state"] == "done" and job["products"] == "verified", f"the job ended {job['state']}: {job}")
        if shown:
            pushed, returned = job["pushed"], job["returned"]
            say(f"→ {job['worker']} ({job['reason']}; {plural(job['slots'], 'slot')})")
            say(
                f"pushed {plural(pushed['files'], 'file')}, {size(pushed['bytes'])}, "
                f"{plural(pushed['requests'], 'round trip')} · ran {job['times']['ran_s']:.1f} s · "
                f"returned {plural(returned['files'], 'file')}, {size(returned['bytes'])}, {job['products']}"
            )
        return lines

    def last_job(self) -> dict[str, Any]:
        jobs = json.loads(self.command(self.place, program("rch"), "jobs", "--json", remote=True).stdout)
        newest: dict[str, Any] = max(jobs, key=lambda job: job["times"]["created"])
        return newest

    def fresh(self) -> tuple[int, int, float]:
        """Units that a local ``cargo build`` found fresh, units in all, and the seconds it says it took."""
        done = self.command(self.workspace, "cargo", "build", "--message-format=json")
        units = [json.loads(line) for line in done.stdout.splitlines() if '"compiler-artifact"' in line]
        seconds = re.search(r"in ([0-9.]+)s", done.stderr)
        return sum(unit["fresh"] for unit in units), len(units), float(seconds[1]) if seconds else 0.0

    def edit(self, crate: str, word: str) -> None:
        with open(os.path.join(self.workspace, LINE_OF[crate]), "a", encoding="utf-8") as file:
            file.write(f"// edited: {word}\n")

    def command(self, cwd: str, *words: str, remote: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a command that has to succeed, quietly."""
        done = subprocess.run(
            words,
            cwd=cwd,
            env=self.there if remote else self.here,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        said = (done.stderr or done.stdout).strip()
        check(done.returncode == 0, f"{' '.join(words)} ended with status {done.returncode}: {said}")
        return done

    def follow(self, cwd: str, words: Sequence[str], *, shown: bool) -> list[str]:
        """Run a command that has to succeed and show its lines as they come."""
        process = subprocess.Popen(
            words, cwd=cwd, env=self.there, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        limit = threading.Timer(300, process.kill)
        limit.start()
        lines: list[str] = []
        try:
            for line in _lines(process.stdout):
                lines.append(line)
                if shown:
                    say(line)
            status = process.wait()
        finally:
            limit.cancel()
            process.kill()
            process.wait()
        check(status == 0, f"{' '.join(words)} ended with status {status}")
        return lines


def _lines(stream: IO[bytes] | None) -> Iterator[str]:
    assert stream is not None  # a pipe was asked for
    for line in stream:
        yield line.decode("utf-8", "replace").rstrip("\n")


def step(number: int, title: str, text: str) -> None:
    print(f"[{number}/{STEPS}] {title:<18} {text}", flush=True)


def say(text: str) -> None:
    print(f"      {text}", flush=True)


def check(holds: bool, message: str) -> None:
    """Raise DemoFailed with what was found instead."""
    if not holds:
        raise DemoFailed(message)


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def size(count: float) -> str:
    """Bytes as people read them: 712 B, 9.1 kB, 11.8 MB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./dev demo", description="Build two small projects on an embedded worker.")
    parser.add_argument("--keep", action="store_true", help="leave the worker and the copies in ./.lab/demo")
    parser.add_argument("--place", default=PLACE, help="directory for everything (default: ./.lab/demo)")
    options = parser.parse_args(argv)
    place = os.path.abspath(options.place)
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a text stream on every real terminal

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    for sign in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, stop)
    os.makedirs(place, mode=0o700, exist_ok=True)
    try:
        with lock_directory(place, timeout_s=0):
            return show(place, keep=options.keep)
    except Fault as error:
        print(error.one_line(), file=sys.stderr)
        return 1


def show(place: str, *, keep: bool) -> int:
    """Run the demo in *place*, take everything down, and return the exit status."""
    remove(place)  # of a run that was killed
    demo = Demo(place)
    try:
        demo.run()
    except KeyboardInterrupt:
        print("rch demo: interrupted", file=sys.stderr)
        return 130
    except RchError as error:
        print(error.one_line(), file=sys.stderr)
        return 1
    finally:
        if keep:
            shown = " ".join(f"{name}={shlex.quote(value)}" for name, value in demo.lab.environment().items())
            print(f"Kept in {place}, until the next ./dev demo. To use it: export {shown}")
        else:
            remove(place)
    print("Next: put your servers into inventory/hosts.yml, then: ansible-playbook site.yml")
    return 0


def remove(place: str) -> None:
    """Take a demo down: its worker, its rchd, its files."""
    EmbeddedLab(os.path.join(place, "lab")).down()
    if os.path.isdir(place):
        remove_tree(place)
    drop_lab_root()


if __name__ == "__main__":
    sys.exit(main())
