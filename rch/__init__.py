"""rch: the build and test commands of coding agents run on a fleet of remote workers, as if they had run here."""

__version__ = "0.1.0"
