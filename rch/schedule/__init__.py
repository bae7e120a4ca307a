"""Decision, Project, Workers -> Lease, or local with a reason. The choice is pure and imports no I/O."""
