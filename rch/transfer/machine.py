"""For which machine an executable was made: a foreign one in a build directory looks green until somebody runs it."""

from __future__ import annotations

import platform
import re
import struct

HEADER_BYTES = 20
"""That much of a file is enough for :func:`machine_of`."""

ELF = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64", 21: "ppc64", 22: "s390x", 258: "loongarch64"}
MACHO = {7: "i386", 12: "arm", 0x01000007: "x86_64", 0x0100000C: "aarch64"}
MACHO_MAGIC = {b"\xcf\xfa\xed\xfe": "<", b"\xce\xfa\xed\xfe": "<", b"\xfe\xed\xfa\xcf": ">", b"\xfe\xed\xfa\xce": ">"}

ALIASES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64", "i686": "i386", "i586": "i386", "ppc64le": "ppc64"}
RUNS_TOO = {"x86_64": frozenset({"i386"}), "aarch64": frozenset({"arm"})}
"""32-bit programs are built on 64-bit machines every day (``-m32``)."""

TRIPLE = re.compile(
    r"(^|/)(x86_64|i[3-6]86|aarch64|arm|thumb|riscv|powerpc|s390x|wasm|mips|loongarch|avr|nvptx)[^/]*-[^/]*/"
)
"""cargo puts what was made for a named target below a directory of that name."""


def this_machine() -> str:
    """``linux x86_64`` and the like: system and machine of this computer, as :func:`machine_of` names them."""
    name = platform.machine().lower()
    return f"{platform.system().lower()} {ALIASES.get(name, name)}"


def machine_of(header: bytes) -> str | None:
    """System and machine of an executable or library by its first bytes; None when it is no ELF or Mach-O file."""
    if header[:4] == b"\x7fELF" and len(header) >= HEADER_BYTES:
        order = ">" if header[5] == 2 else "<"
        kind, number = struct.unpack_from(order + "HH", header, 16)
        if kind not in (2, 3):  # objects and cores run nowhere
            return None
        return f"linux {ELF.get(number, f'ELF machine {number}')}"
    order = MACHO_MAGIC.get(header[:4], "")
    if order and len(header) >= 8:
        (number,) = struct.unpack_from(order + "I", header, 4)
        return f"darwin {MACHO.get(number, f'Mach-O machine {number}')}"
    return None


def is_foreign(path: str, header: bytes, ours: str) -> bool:
    """True if the file at *path* was made for another machine than *ours* (lessons AR-05), and not on request.

    A bare-metal or foreign file below a directory named after a target triple was asked for.
    """
    made_for = machine_of(header)
    if made_for is None or made_for == ours or TRIPLE.search(path):
        return False
    system, _, machine = made_for.partition(" ")
    our_system, _, our_machine = ours.partition(" ")
    return system != our_system or machine not in RUNS_TOO.get(our_machine, frozenset())
