"""``rch-wkr``: serve, supervise, and questions that a person may ask over plain ssh (coverage A-27)."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any, Dict, List, NoReturn, Optional

from rch.worker.cache import Cache, own_command

if TYPE_CHECKING:
    from rch.worker.slots import Slots


def main(argv: Optional[List[str]] = None) -> None:
    """Parse and run; exits by the command's status."""
    words = sys.argv[1:] if argv is None else argv
    if sys.getfilesystemencoding().lower() not in ("utf-8", "utf8"):
        # Paths are UTF-8 with surrogateescape on both sides, whatever locale the login has.
        command = own_command()
        os.execv(command[0], [command[0], "-X", "utf8", *command[1:], *words])  # noqa: S606  ourselves, once more
    os.umask(0o077)
    if words[:1] == ["supervise"] and len(words) > 1 and not words[1].startswith("-"):
        # On every job's path, and argparse costs 10 ms.
        _supervise(words[1], dict(zip(words[2::2], words[3::2])))  # noqa: B905  strict= is of Python 3.10
    if words[:1] == ["measure"] and len(words) == 2:
        from rch.worker._rates import measure

        _print(measure(words[1]))
        return
    options = _parser().parse_args(words)
    if options.command == "version":
        from rch.worker._version import VERSION
        from rch.worker.cache import own_build
        from rch.worker.protocol import PROTOCOL

        _print({"version": VERSION, "protocol": PROTOCOL, "build": own_build()})
        return
    cache = Cache(options.cache)
    try:
        cache.create()
    except OSError as error:
        sys.stderr.write("rch-wkr: %s: %s\n" % (cache.path, error.strerror or error))
        sys.exit(1)
    if options.command == "serve":
        _serve(cache, options)
    _ask(cache, options)


def _serve(cache: Cache, options: argparse.Namespace) -> NoReturn:
    status: Optional[int] = None
    if options.socket:
        from rch.worker.warm import keep_warm

        keep_warm(cache)
    if os.path.exists(os.path.join(cache.path, "serve.sock")):
        from rch.worker.warm import hand_over

        status = hand_over(cache, options.slots, confined=options.confined)
    if status is None:
        from rch.worker.serve import serve

        status = serve(cache, options.slots, confined=options.confined)
    os._exit(status)  # not waiting for long polls: whoever asked is gone


def _ask(cache: Cache, options: argparse.Namespace) -> None:
    from rch.worker import collect, facts
    from rch.worker.slots import Slots

    slots = Slots(cache.slots, options.slots)
    if options.command == "health":
        _print(facts.health(cache, slots))
    elif options.command == "slots":
        used = slots.used()
        _print({"total": slots.total, "used": used, "free": slots.total - len(used)})
    elif options.command == "facts":
        _print(facts.facts(cache, slots))
    elif options.command == "bench":
        _print(_bench(cache, slots, options))
    else:
        _print(collect.collect(cache, max_age_s=options.max_age, keep=options.keep, dry_run=options.dry_run))


def _bench(cache: Cache, slots: "Slots", options: argparse.Namespace) -> Dict[str, Any]:
    from rch.worker import bench, facts
    from rch.worker.refusal import Refusal

    try:
        return bench.bench(
            cache, slots, facts.machine(), keep=options.keep, max_age_s=options.max_age, given=options.given
        )
    except (Refusal, OSError) as error:
        sys.stderr.write("rch-wkr: not measured: %s\n" % error)
        sys.exit(1)


def _supervise(job: str, options: Dict[str, str]) -> NoReturn:
    """``supervise JOBDIR [--slots FD,…] [--locks FD,…] [--ready FD]``: descriptors that ``serve`` hands over."""
    held = [_numbers(options.get(name, "")) for name in ("--slots", "--locks", "--ready")]
    for descriptor in held[0] + held[1] + held[2]:
        os.set_inheritable(descriptor, False)
    # Once more, so that serve is not the parent: it must neither wait for us nor keep a zombie.
    if os.fork():
        os._exit(0)
    from rch.worker.supervise import supervise

    supervise(os.path.abspath(job), held[0], held[1], held[2][0] if held[2] else None)
    os._exit(0)  # everything is written; tearing the interpreter down would only take time


def _numbers(text: str) -> List[int]:
    return [int(word) for word in text.split(",") if word]


def _print(value: object) -> None:
    sys.stdout.write(json.dumps(value, sort_keys=True) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rch-wkr", description="The worker's side of rch.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("serve", "health", "slots", "facts", "bench", "gc"):
        command = commands.add_parser(name)
        command.add_argument("--cache", default="~/.rch", metavar="DIR", help="the cache directory (default ~/.rch)")
        command.add_argument(
            "--slots", type=_positive, default=None, metavar="N", help="slots to offer (default: CPUs)"
        )
        if name == "serve":
            command.add_argument("--confined", action="store_true", help="refuse jobs without a sandbox")
            command.add_argument("--socket", action="store_true", help="stay warm for other calls of serve")
        if name == "gc":
            command.add_argument("--max-age", type=float, default=86400.0, metavar="SECONDS")
            command.add_argument("--keep", type=int, default=5, metavar="N", help="projects that stay in any case")
            command.add_argument("--dry-run", action="store_true")
        if name == "bench":
            command.add_argument("--keep", action="store_true", help="write it down as this worker's score")
            command.add_argument(
                "--max-age", type=float, default=0.0, metavar="SECONDS", help="a kept score of this age will do"
            )
            command.add_argument("--given", type=_score, metavar="SCORE", help="a score measured elsewhere, 0 to 100")
    commands.add_parser("version")
    supervise = commands.add_parser("supervise", help="run the job of a job directory (serve starts it)")
    supervise.add_argument("job", metavar="JOBDIR")
    return parser


def _score(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 100:
        raise ValueError(text)
    return number


def _positive(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1024:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    main()
