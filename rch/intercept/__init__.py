"""command text or argv, cwd, policy -> Decision. Pure; imports no I/O."""
