"""Which of the caller's variables a job gets: named patterns per tool family, never a secret, nothing of this host.

Values and absences are the caller's on both sides (lessons TE-03); what is not named stays here, unless
``execution.env`` gives it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rch.client_paths import path_without_shims
from rch.intercept.decision import Kind
from rch.project.arguments import family

_EVERYWHERE = (
    "HOME USER LOGNAME SHELL PATH PWD LANG LANGUAGE LC_* TZ TERM COLORTERM NO_COLOR CLICOLOR CLICOLOR_FORCE "
    "FORCE_COLOR COLUMNS LINES SOURCE_DATE_EPOCH CI TMPDIR TMP TEMP V VERBOSE"
)
_COMPILERS = (
    "CC CXX CPP LD AR AS NM RANLIB STRIP OBJCOPY OBJDUMP FC CC_* CXX_* AR_* LD_LIBRARY_PATH HOST_* TARGET_* "
    "CFLAGS CXXFLAGS CPPFLAGS LDFLAGS LDLIBS LIBS ARFLAGS ASFLAGS FFLAGS CFLAGS_* CXXFLAGS_* CPPFLAGS_* LDFLAGS_* "
    "CPATH C_INCLUDE_PATH CPLUS_INCLUDE_PATH LIBRARY_PATH COMPILER_PATH GCC_* CCACHE_* SCCACHE_* PKG_CONFIG* "
    "ACLOCAL_PATH AUTOCONF AUTOMAKE LIBTOOL YACC LEX BISON* FLEX DEPENDENCIES_OUTPUT"
)
_RUST = (
    "RUST* CARGO_* CARGO NEXTEST_* INSTA_* PROPTEST_* QUICKCHECK_* TRYBUILD CLIPPY_* MIRI* CRATE_CC_* NUM_JOBS "
    "OPENSSL_* LIBCLANG_PATH CLANG_PATH LLVM_* BINDGEN_* PROTOC PROTOC_INCLUDE *_SYS_* *_NO_VENDOR *_NO_PKG_CONFIG "
    "*_STATIC SQLX_OFFLINE SQLX_OFFLINE_DIR VERGEN_* PYO3_* CMAKE CMAKE_*"
)
_MAKE = (
    "MAKEFLAGS MFLAGS MAKELEVEL MAKEFILES MAKE GNUMAKEFLAGS MAKEOVERRIDES ARCH CROSS_COMPILE KBUILD_* O DESTDIR DEB_*"
)
_CMAKE = "CMAKE_* CTEST_* NINJA_STATUS CLICOLOR_FORCE GTEST_* MESON_* NINJA* BOOST_ROOT Qt5_DIR Qt6_DIR"
_GO = "GO* CGO_* XDG_CACHE_HOME"
_NODE = "NODE_* npm_config_* NPM_CONFIG_* BUN_* YARN_* PNPM_* TS_NODE_* VITE_* NEXT_* JEST_* TSC_* BABEL_ENV"
_PYTHON = "PYTHON* PYTEST_* HYPOTHESIS_* COVERAGE_* TOX_* VIRTUAL_ENV"
_JAVA = "JAVA_HOME JAVA_OPTS JAVA_TOOL_OPTIONS GRADLE_* MAVEN_* M2_HOME JDK_HOME"

_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "cargo": (_RUST, _COMPILERS, _MAKE),
    "rustc": (_RUST, _COMPILERS),
    "cc": (_COMPILERS,),
    "make": (_MAKE, _COMPILERS, _CMAKE, _RUST, _GO, _PYTHON),
    "cmake": (_CMAKE, _COMPILERS, _MAKE),
    "ninja": (_CMAKE, _COMPILERS, _MAKE, _RUST, _GO, _PYTHON),
    "meson": (_CMAKE, _COMPILERS, _PYTHON),
    "ctest": (_CMAKE, _COMPILERS),
    "go": (_GO, _COMPILERS),
    "zig": ("ZIG_*", _COMPILERS),
    "pytest": (_PYTHON,),
    "gradle": (_JAVA,),
    "maven": (_JAVA,),
    **dict.fromkeys(("npm", "pnpm", "yarn", "bun", "tsc"), (_NODE,)),
}

_FREE = "command"
"""The kind without a rule of its own: everything crosses but secrets and what belongs to this host."""

_HOST_BOUND = (
    "RCH_* SSH_* DISPLAY WAYLAND_DISPLAY XAUTHORITY DBUS* XDG_RUNTIME_DIR XDG_SESSION_* XDG_SEAT XDG_VTNR "
    "SESSION_MANAGER WINDOWID DESKTOP_SESSION LD_PRELOAD LD_AUDIT TMUX TMUX_PANE STY GPG_AGENT_INFO GPG_TTY "
    "ICEAUTHORITY SUDO_* INVOCATION_ID JOURNAL_STREAM NOTIFY_SOCKET LISTEN_* VSCODE_* TERM_SESSION_ID KITTY_* "
    "ALACRITTY_* HOSTNAME _ OLDPWD SHLVL GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_ASKPASS *_proxy *_PROXY BASH_ENV "
    "MAIL ENV PROMPT_COMMAND BASH_FUNC_*"
)
_SECRET = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|PRIVATE|COOKIE|BEARER|(?:^|_)AUTH(?:$|_)|_AUTHTOKEN|(?:^|_)PWD_|_PAT$"
    r"|API_?KEY|ACCESS_?KEY|_KEYS?$|^KEY$|^(?:AWS|AZURE|GOOGLE|GCP|GCLOUD|ANTHROPIC|OPENAI|GITHUB|GITLAB|NPM_CONFIG_//)_"
    r"|DATABASE_URL|_DSN$|CONNECTION_STRING",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(r"://[^/\s:@]+:[^/\s@]+@|-----BEGIN [A-Z ]*PRIVATE KEY")
_NOT_SECRET = frozenset(("CARGO_NET_GIT_FETCH_WITH_CLI",))
_JOBSERVER = re.compile(r"(?:^|\s)--jobserver-(?:auth|fds)=\S+")


def job_environment(
    kind: Kind,
    env: Mapping[str, str],
    config_env: Mapping[str, str] | None = None,
    *,
    cwd: str = "",
) -> dict[str, str]:
    """The complete environment of a job of *kind*, from the caller's *env*.

    config_env: ``execution.env``; beats the caller's values and may name secrets, but nothing of ours (``RCH_*``).
    cwd:        where the job starts; becomes PWD.
    """
    patterns = _FAMILIES.get(family(kind), ())
    wanted = _matcher(" ".join((_EVERYWHERE, *patterns)))
    free = family(kind) == _FREE
    found: dict[str, str] = {}
    for name, value in env.items():
        if _is_host_bound(name) or is_secret(name, value):
            continue
        if free or wanted.fullmatch(name):
            found[name] = value
    found |= {name: value for name, value in (config_env or {}).items() if not name.startswith("RCH_")}
    for name in ("MAKEFLAGS", "MFLAGS", "GNUMAKEFLAGS"):
        if name in found:
            found[name] = without_jobserver(found[name])
    found.pop("CARGO_MAKEFLAGS", None)  # cargo makes it anew for its build scripts; the caller's job server is here
    if _NODE in patterns:
        # npm asks once a week whether there is a newer one and remembers that in HOME, which a job has empty.
        found.setdefault("npm_config_update_notifier", "false")
    if "PATH" in found:
        found["PATH"] = path_without_shims(found["PATH"])
    if cwd:
        found["PWD"] = cwd
    return found


def is_secret(name: str, value: str = "") -> bool:
    """True if a variable looks like one that must not leave this machine unasked."""
    if name in _NOT_SECRET:
        return False
    return _SECRET.search(name) is not None or _SECRET_VALUE.search(value) is not None


def without_jobserver(flags: str) -> str:
    """MAKEFLAGS without the descriptors or FIFO of a job server, which are of this host (lessons EX-08).

    A bare ``-j`` next to them means "as many as the server gives", alone it would mean "without limit".
    """
    stripped = _JOBSERVER.sub("", flags)
    if stripped != flags:
        stripped = re.sub(r"(?:^|(?<=\s))-j(?=\s|$)", "", stripped)
    return stripped if stripped.strip() else ""


def _is_host_bound(name: str) -> bool:
    return _HOST.fullmatch(name) is not None


def _matcher(patterns: str) -> re.Pattern[str]:
    return re.compile(
        "|".join(re.escape(word).replace(r"\*", ".*") for word in dict.fromkeys(patterns.split())), re.DOTALL
    )


_HOST = _matcher(_HOST_BOUND)
