"""A short run of scripts/torture: one of each sort of fault, real clients with transactions and
groups, and no anomaly in what they saw. Long runs, with faults drawn from seeds, are
scripts/torture's own."""

import os
import subprocess
import sys

import pytest

from support.paths import ROOT, TRINE
from torture.faults import CANNOT_BREAK

SEED = 1
FAULTS = "kill-leader,stop-leader,isolate,one-way,full-disk,kill-all"


@pytest.mark.timeout(840)
def test_nothing_is_lost_doubled_or_torn_under_faults(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "torture", "--seed", str(SEED), "--seeds", "1", "--faults", FAULTS,
         "--seconds", "0", "--transactions", "on", "--dir", tmp_path],
        cwd=ROOT / "tests", env={**os.environ, "TRINE_BIN": str(TRINE)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(run.stdout)
    if run.returncode == CANNOT_BREAK:
        pytest.skip(run.stdout.splitlines()[-1])
    assert run.returncode == 0, run.stdout
    assert "1 runs without anomalies" in run.stdout
