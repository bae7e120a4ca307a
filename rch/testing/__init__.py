"""Public test tools: labs of real workers, pytest fixtures, the mock's controls."""
