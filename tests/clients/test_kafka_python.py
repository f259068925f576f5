"""kafka-python 2.0.2, which most tutorials pin, and 3.x, each in its own environment."""

import pathlib
import subprocess

import pytest
from support.paths import python_of

CASES = pathlib.Path(__file__).with_name("kafka_python_cases.py")


@pytest.mark.parametrize("case", ["topics", "acks", "gzip", "offsets", "commit", "rebalance"])
@pytest.mark.parametrize("venv, version", [("kafka2", "2.0.2"), ("main", "3.")])
def test_kafka_python(cluster, name, venv, version, case):
    done = subprocess.run(
        [python_of(venv), CASES, case, ",".join(cluster.kafka), name],
        capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.startswith(version)
