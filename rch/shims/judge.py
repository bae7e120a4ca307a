"""What each shim can tell from the words alone, as lines of POSIX sh. Standard library only, pure.

A shim errs on one side only: what it keeps here, :func:`rch.intercept.classify_argv` keeps here too (the tests hold
that over the whole golden set). What it is not sure about it asks; an answer costs a start of the client, no more.
The lines set ``_rch_go`` to ``ask`` or ``here`` and leave the words as they are.
"""

from __future__ import annotations

_ASKING = "-h | --help | -V | --version"

_CARGO = """\
_rch_go=here _rch_skip="" _rch_name=""
for _rch_word do
  if [ -n "$_rch_skip" ]; then
    _rch_skip=""
    continue
  fi
  case $_rch_word in
    --) break ;;
    -h | --help | -V | --version | --list | --fix | --open | --message-format=json*) _rch_go=here && break ;;
    --color | --config | --lockfile-path | -Z | -C) _rch_skip=1 ;;
    -* | +*) ;;
    *)
      [ -z "$_rch_name" ] || continue
      _rch_name=$_rch_word
      case $_rch_name in
        NEVER) break ;;
        *) _rch_go=ask ;;
      esac
      ;;
  esac
done"""

# Names of cargo's own that build nothing; an unknown one may be an alias, which only the client can read.
_CARGO_NEVER = (
    "add clean config fetch fix fmt generate-lockfile help info init install locate-project login logout metadata new "
    "owner package pkgid publish read-manifest remove rm report search tree uninstall update vendor verify-project "
    "version yank"
)

_RUSTC = """\
_rch_go=here
for _rch_word do
  case $_rch_word in
    -h | --help | -V | -vV | -Vv | --version | --print | --print=* | --explain | --json* | --error-format=json* | -)
      _rch_go=here && break ;;
    *.rs) _rch_go=ask ;;
  esac
done"""

# conftest is autoconf's name for its probes.
_CC = """\
_rch_go=here
for _rch_word do
  case $_rch_word in
    -E | -M | -MM | -v | -h | -'###' | --version | --help | --help=*) _rch_go=here && break ;;
    --target-help | -dumpversion | -dumpfullversion | -dumpmachine | -dumpspecs | -dM*) _rch_go=here && break ;;
    -print-* | --print-* | -wrapper) _rch_go=here && break ;;
    - | /dev/stdin | @* | conftest* | */conftest*) _rch_go=here && break ;;
    *.c | *.h | *.cc | *.cpp | *.cxx | *.c++ | *.cp | *.hpp | *.hh | *.hxx | *.C | *.H) _rch_go=ask ;;
  esac
done"""

_MAKE = """\
_rch_go=ask _rch_skip=""
for _rch_word do
  if [ -n "$_rch_skip" ]; then
    _rch_skip=""
    continue
  fi
  case $_rch_word in
    --) break ;;
    -C | -f | -I | -o | -W | -E | --directory | --file | --makefile | --include-dir) _rch_skip=1 ;;
    --old-file | --assume-old | --what-if | --new-file | --assume-new | --eval) _rch_skip=1 ;;
    -n | --dry-run | --just-print | --recon | -q | --question | -t | --touch) _rch_go=here && break ;;
    -p | --print-data-base | -v | --version | -h | --help) _rch_go=here && break ;;
    install | uninstall | clean | distclean | help | run | deploy | fmt | format) _rch_go=here && break ;;
  esac
done"""

_NINJA = """\
_rch_go=ask _rch_skip=""
for _rch_word do
  if [ -n "$_rch_skip" ]; then
    _rch_skip=""
    continue
  fi
  case $_rch_word in
    -C | -f | -j | -k | -l | -d | -w) _rch_skip=1 ;;
    -n | -t | -t* | -h | --help | --version | clean | install) _rch_go=here && break ;;
  esac
done"""

_GO = """\
_rch_go=here
case ${1-} in build | test | vet | -C | --C | -C=* | --C=*) _rch_go=ask ;; esac"""


def _first(*words: str) -> str:
    return f"_rch_go=here\ncase ${{1-}} in {' | '.join(words)}) _rch_go=ask ;; esac"


def _any(*words: str) -> str:
    return f"_rch_go=here\nfor _rch_word do\n  case $_rch_word in {' | '.join(words)}) _rch_go=ask ;; esac\ndone"


_UNLESS_ASKING = f"""\
_rch_go=ask
for _rch_word do
  case $_rch_word in {_ASKING}) _rch_go=here && break ;; esac
done"""

JUDGES: dict[str, str] = {
    "cargo": _CARGO.replace("NEVER", " | ".join(_CARGO_NEVER.split())),
    "rustc": _RUSTC,
    "cc": _CC,
    "make": _MAKE,
    "cmake": _first("--build"),
    "ninja": _NINJA,
    "meson": _first("compile"),
    "go": _GO,
    "bun": _any("test", "typecheck"),
    "tsc": _any("--noEmit"),
    "zig": _first("build"),
    "ctest": _UNLESS_ASKING,
    "pytest": _UNLESS_ASKING,
    "npm": _UNLESS_ASKING,
    "gradle": _UNLESS_ASKING,
    "maven": _UNLESS_ASKING,
}
"""Toolchain name -> the lines that judge its words."""

PROGRAMS: dict[str, tuple[str, ...]] = {
    "cargo": ("cargo",),
    "rustc": ("rustc",),
    "cc": ("cc", "c++", "gcc", "g++", "clang", "clang++"),
    "make": ("make", "gmake"),
    "cmake": ("cmake",),
    "ninja": ("ninja", "ninja-build", "samu"),
    "meson": ("meson",),
    "go": ("go",),
    "bun": ("bun",),
    "tsc": ("tsc", "vue-tsc", "npx", "bunx", "pnpx"),
    "zig": ("zig",),
    "ctest": ("ctest",),
    "pytest": ("pytest", "py.test"),
    "npm": ("npm", "pnpm", "yarn"),
    "gradle": ("gradle",),
    "maven": ("mvn", "mvnd"),
}
"""Toolchain name -> programs that get a shim. Runners of everything (uv, poetry, python) get none."""

PARENTS = (
    *(
        "make",
        "gmake",
        "ninja",
        "ninja-build",
        "samu",
        "cargo",
        "rustc",
        "cmake",
        "ctest",
        "go",
        "zig",
        "meson",
        "bazel",
    ),
    *("configure", "configure.gnu", "config.status", "Configure", "libtool", "collect2", "build-script-*"),
)
"""Names of processes (15 bytes at most) whose compilers and sub-builds belong to a build that runs here."""
