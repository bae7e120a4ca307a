"""The management commands: parse, ask rchd (or the files, where it does not run), print. No rules of their own."""
