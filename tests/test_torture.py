"""Two short runs of scripts/torture: kill -9, SIGSTOP, network cuts, wiped and full disks from a
seed, with real clients, and no anomaly in what they saw. Long runs, and transactions under faults,
are scripts/torture's own."""

import os
import subprocess
import sys

import pytest

from support.paths import ROOT, TRINE

SEEDS = (1, 2)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_doubled_or_torn_under_faults(seed, tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "torture", "--seed", str(seed), "--seeds", "1",
         "--seconds", "30", "--transactions", "off", "--dir", tmp_path],
        cwd=ROOT / "tests", env={**os.environ, "TRINE_BIN": str(TRINE)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(run.stdout)
    assert run.returncode == 0, run.stdout
    assert "1 runs without anomalies" in run.stdout
