"""kafka-python 2.0.2, which most tutorials pin, and 3.x, each in its own environment."""

import pathlib
import subprocess

import pytest
from support.paths import python_of

CASES = pathlib.Path(__file__).with_name("kafka_python_cases.py")
VERSIONS = {"kafka2": "2.0.2", "main": "3."}
BOTH = ["topics", "acks", "compression", "offsets", "commit", "rebalance"]


@pytest.mark.parametrize("venv, case", [
    *((venv, case) for venv in VERSIONS for case in BOTH), ("main", "idempotence")])
def test_kafka_python(cluster, name, venv, case):
    done = subprocess.run(
        [python_of(venv), CASES, case, ",".join(cluster.kafka), name],
        capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.startswith(VERSIONS[venv])
