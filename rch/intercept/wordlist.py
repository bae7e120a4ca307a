"""Words that settle a command at once: tier 0 (no build ever) and the programs that hide one. Pure data."""

from __future__ import annotations

from rch.toolchains.option import word_set

REJECT_PREFIXES: tuple[str, ...] = (
    # navigation and inspection
    *("cd ", "cd\t", "ls", "pwd", "tree"),
    # viewing files
    *("cat ", "head ", "tail ", "less ", "more ", "bat ", "view "),
    # file operations
    *("mkdir ", "touch ", "rm ", "cp ", "mv ", "ln ", "chmod ", "chown ", "chgrp "),
    # text
    *("grep ", "rg ", "ag ", "awk ", "sed ", "sort ", "uniq ", "wc ", "cut ", "tr ", "diff ", "comm ", "join "),
    # version control
    *("git ", "hg ", "svn "),
    # containers
    *("docker ", "podman ", "kubectl ", "helm "),
    # remote
    *("ssh ", "scp ", "rsync ", "sftp "),
    # network
    *("curl ", "wget ", "http "),
    # package managers
    *("pip ", "npm ", "yarn ", "pnpm ", "bun ", "apt ", "apt-get ", "brew ", "dnf ", "yum "),
    # the shell's own
    *("echo ", "printf ", "export ", "source ", ".", "alias ", "unalias ", "which ", "type ", "whereis "),
    *("env ", "set ", "unset "),
    # processes
    *("ps ", "top ", "htop ", "kill ", "pkill ", "jobs ", "fg ", "bg ", "nohup "),
    # the system
    *("uname ", "hostname ", "whoami ", "id ", "groups ", "df ", "du ", "free ", "uptime ", "date "),
    # editors
    *("vim ", "vi ", "nvim ", "nano ", "emacs ", "code ", "subl "),
)
"""The list of seed 002, 5.3. ``strict`` compares it with the beginning of the line, literally."""

# Their own kind (npm test) or wrapper rule (env X=1 make) decides.
_JUDGED_ELSEWHERE = frozenset({"npm", "yarn", "pnpm", "bun", "env", "nohup"})

REJECT_WORDS: frozenset[str] = frozenset(prefix.strip() for prefix in REJECT_PREFIXES) - _JUDGED_ELSEWHERE | {
    *("[", "[[", "test", "true", "false", ":", "read", "wait", "sleep", "exit", "return", "break", "continue", "shift"),
    *("local", "declare", "readonly", "typeset", "trap", "ulimit", "umask", "hash", "pushd", "popd", "let"),
    *("tee", "basename", "dirname", "realpath", "readlink", "stat", "file", "jq", "rmdir", "rch", "mktemp", "seq"),
}
"""``transparent`` compares whole words with the command word (``ls``, not ``lsof``; ``.`` the builtin, not ``./x``)."""

UNSUPPORTED_TOOLS: frozenset[str] = frozenset({"bazel", "bazelisk"})
"""Build tools known by name that are not sent out."""

KEEPING_WRAPPERS: frozenset[str] = word_set(
    "sudo doas su strace ltrace perf valgrind gdb lldb rr script unshare chroot runuser fakeroot xargs parallel watch "
    "entr ccache sccache distcc icecc bear scan-build intercept-build hyperfine flock setsid systemd-run docker podman "
    "firejail bwrap find rustup unbuffer direnv nix nix-shell mise asdf catchsegv torsocks proot faketime chrt prlimit "
    "nsenter"
)
"""Programs behind which a build stays here: root's files, a trace of our client, a command line we do not see."""

SHELLS: frozenset[str] = frozenset({"bash", "sh", "zsh", "dash", "ksh", "ash"})
