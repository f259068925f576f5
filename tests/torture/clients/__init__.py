"""Clients of a torture run: each process runs some roles, each on its own thread.

`python -m torture.clients SPEC.json` runs until SIGTERM; then producers flush, everyone closes,
and the process ends. What they did and saw is in `<history>/<name>.jsonl`.
"""
