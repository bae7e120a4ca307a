"""cwd -> Project, Manifest, digest: what a command needs from this machine."""
