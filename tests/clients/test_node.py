"""KafkaJS, which wants old versions of every API, and @platformatic/kafka, which wants new ones."""

import os
import subprocess

import pytest
from jvm import CLIENTS
from support.paths import ROOT

HERE = ROOT / "tests" / "clients" / "node"
CASES = [
    ("kafkajs_cases.cjs", case)
    for case in ("topics", "messages", "groups", "rebalance", "offsets")
] + [
    ("platformatic_cases.mjs", case)
    for case in ("topics", "messages", "groups", "records")
]


@pytest.mark.parametrize("script, case", CASES)
def test_node(cluster, name, script, case):
    home = CLIENTS / "node"
    skipped = home / "skipped"
    if skipped.exists():
        pytest.skip(skipped.read_text().strip())
    env = {**os.environ, "NODE_PATH": str(home / "node_modules")}
    done = subprocess.run(
        ["node", HERE / script, case, ",".join(cluster.kafka), name],
        env=env, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr[-4000:]
