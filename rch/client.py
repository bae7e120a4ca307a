"""The thin client: ``rch exec`` without the rest of rch. Standard library only, raw sockets, no third-party import.

Started as ``python -I -S /abs/rch/client.py [OPTIONS] -- CMD…`` by shims, or through ``rch exec``. This file is only
the door: a script is compiled anew at every start, so everything else lies in modules beside it, which are not.

    client_main      one command from end to end           client_end      its last words
    client_options   the words, the switches, which decides
    client_request   what rchd is told about the caller    client_paths    where rchd listens
    client_reach     connections to rchd, again and again  client_start    the birth of rchd
    client_link      one connection                        client_spool    the one without sockets
    client_frames    what is spoken on it                  client_proof    that the caller may write a root
    client_relay     bytes and signals while rchd works    client_stdin, client_sink
    client_output    --output, --show-worker               client_local    the run here: slots, child, hooks
"""

from __future__ import annotations

import os
import sys


def main(words: list[str] | None = None) -> int:
    """Run ``rch exec`` with *words* (default: the process's own); the exit status."""
    if __name__ == "__main__":
        # -I leaves this package out of the path. Behind everything else, so that nothing beside it is found first.
        sys.path.append(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    from rch.client_main import main as run

    return run(sys.argv[1:] if words is None else words)


if __name__ == "__main__":
    sys.exit(main())
