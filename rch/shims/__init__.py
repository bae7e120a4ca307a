"""A directory of small POSIX sh programs, first in PATH, that stand for build tools: see program.py."""
