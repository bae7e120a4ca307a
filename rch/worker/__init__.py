"""rch-wkr: what runs on a worker. Standard library of Python 3.9 only; built into one zipapp.

``serve`` answers requests over one long-lived channel, ``supervise`` runs one job and outlives every connection.
Nothing here may import from the rest of ``rch``; the rest of ``rch`` imports only :mod:`rch.worker.protocol`.
"""
