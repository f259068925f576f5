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


def test_everything_lands_once_and_a_second_run_collects_what_has_changed(tmp_path):
    directory = tmp_path / "demo"
    first = demo("--dir", directory)
    files = first["files"]
    assert files >= 200
    assert (first["records"], first["stored"], first["documents"]) == (files, files, files)
    assert len(first["records_per_partition"]) == 3
    assert all(n > 0 for n in first["records_per_partition"])
    # One block each: no file is as long as a block. An empty one has none.
    sample = [f for f in (directory / "sample").rglob("*.txt") if not f.name.startswith(".")]
    assert len(sample) == files
    assert first["blocks"] == sum(f.stat().st_size > 0 for f in sample) < files
    changed = directory / "sample" / "edge" / "one-byte.txt"
    changed.write_text("두 번째 판\n")
    # All counts that the second run waits for are met before it has collected anything; that it
    # waits for the change is verified by the run itself.
    second = demo("--dir", directory)
    assert (second["records"], second["stored"], second["documents"]) == (files + 1, files, files)
    assert changed.read_text() == "두 번째 판\n"


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


def test_new_and_changed_files_appear_in_search_by_themselves(running):
    process, directory = running
    ports = json.loads(process.stdout.readline())["1"]
    line = process.stdout.readline()
    assert line, process.stderr.read()
    landed = json.loads(line)
    assert landed["documents"] == landed["files"]
    sample = pathlib.Path(directory) / "sample"
    (sample / "새 파일.txt").write_text("새 소식\n회의에서 정한 것 zyxwv\n")
    path = "news/en/2025/01/article-000.txt"
    assert (sample / path).exists()
    content = "Changed news\n\nNobody had written vwxyz before.\n".encode()
    (sample / path).write_bytes(content)

    def hits(query):
        answer = requests.post(f"http://{ports['elastic']}/news/_search", json={"query": query},
                               timeout=10)
        answer.raise_for_status()
        return [hit["_source"] for hit in answer.json()["hits"]["hits"]]

    def stored(path):
        url = f"http://{ports['webhdfs']}/webhdfs/v1/datalake/news/{path}?op=OPEN"
        answer = requests.get(url, timeout=10)
        answer.raise_for_status()
        return answer.content

    found = wait_until(lambda: hits({"match": {"body": "zyxwv"}}), 60, "the new file in search")
    assert [document["fileName"] for document in found] == ["새 파일.txt"]
    found = wait_until(lambda: hits({"match": {"body": "vwxyz"}}), 60, "the change in search")
    assert [document["subject"] for document in found] == ["Changed news"]
    # It replaces the old document and the old original.
    assert hits({"term": {"fullPathName": f"/{path}"}}) == found
    assert stored(path) == content
    # Korean is searched by bigrams: 회의 finds 회의에서.
    assert hits({"match": {"body": "회의"}})
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert time.monotonic() - began < 30
