"""A short run of scripts/torture: kill -9, SIGSTOP, cut networks, wiped and full disks drawn from
a seed, real clients with transactions and groups, and no anomaly in what they saw. Long runs are
scripts/torture's own."""

import os
import subprocess
import sys

import pytest

from support.paths import ROOT, TRINE

SEED = 1


@pytest.mark.timeout(280)
def test_nothing_is_lost_doubled_or_torn_under_faults(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "torture", "--seed", str(SEED), "--seeds", "1", "--seconds", "20",
         "--transactions", "on", "--dir", tmp_path],
        cwd=ROOT / "tests", env={**os.environ, "TRINE_BIN": str(TRINE)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(run.stdout)
    assert run.returncode == 0, run.stdout
    assert "1 runs without anomalies" in run.stdout
