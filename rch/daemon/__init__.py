"""rchd: keeps the pipeline warm. Sockets, store and timers; no rules of its own."""
