"""Torture: three real nodes under faults, real Kafka clients, a recorded history, a checker.

* `run` is one run: a cluster, clients, faults from a seed, healing, last reads, verdict.
* `cluster`, `network`, `disks` are what can break; `faults` breaks it.
* `clients` are processes of their own; each writes what it did and saw to a file.
* `history` reads those files; `checks` are pure functions from a history to anomalies.

`scripts/torture --help` tells how to run it.
"""
