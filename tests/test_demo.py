"""`trine demo`: the whole job end to end, verified by reading back through the three ports."""

import json
import pathlib
import signal
import subprocess
import time

import pytest
import requests

from support.paths import TRINE
from support.wait import wait_until


def demo(*words):
    result = subprocess.run(
        [TRINE, "-o", "json", "demo", "--once", "--port-base", "free", *words],
        capture_output=True, text=True, timeout=280,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_everything_lands_once_and_a_second_run_collects_nothing(tmp_path):
    first = demo("--dir", tmp_path / "demo")
    files = first["files"]
    assert files >= 200
    assert (first["records"], first["stored"], first["documents"]) == (files, files, files)
    assert len(first["records_per_partition"]) == 3
    assert all(n > 0 for n in first["records_per_partition"])
    second = demo("--dir", tmp_path / "demo")
    assert (second["records"], second["stored"], second["documents"]) == (files, files, files)


@pytest.fixture
def running(tmp_path):
    process = subprocess.Popen(
        [TRINE, "-o", "json", "demo", "--dir", tmp_path / "demo", "--port-base", "free"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    yield process, tmp_path / "demo"
    if process.poll() is None:
        process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()


def test_a_new_file_appears_in_search_by_itself(running):
    process, directory = running
    ports = json.loads(process.stdout.readline())["1"]
    line = process.stdout.readline()
    assert line, process.stderr.read()
    landed = json.loads(line)
    assert landed["documents"] == landed["files"]
    body = "새 소식\n회의에서 정한 것 zyxwv\n"
    (pathlib.Path(directory) / "sample" / "새 파일.txt").write_text(body)

    def hits(word):
        query = {"query": {"match": {"body": word}}}
        answer = requests.post(f"http://{ports['elastic']}/news/_search", json=query, timeout=10)
        answer.raise_for_status()
        return answer.json()["hits"]["hits"]

    found = wait_until(lambda: hits("zyxwv"), 60, "the new file in search")
    assert len(found) == 1
    assert found[0]["_source"]["fileName"] == "새 파일.txt"
    # Korean is searched by bigrams: 회의 finds 회의에서.
    assert hits("회의")
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert time.monotonic() - began < 30
