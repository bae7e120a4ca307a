"""The coding agents: how each asks about a command, what its user allowed it, and how rch is put into its settings."""
