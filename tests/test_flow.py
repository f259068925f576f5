"""`trine source` and `trine pipeline` as an operator uses them, through any node."""

import json
import os
import time

import pytest
import requests
from confluent_kafka import Consumer, TopicPartition

from support.pipelines import apply, local_pipeline, write_files
from support.reading import count, records
from support.wait import wait_until

# One byte more than the collector takes.
TOO_LARGE = 256 * 1024 * 1024 + 1


class Operator:
    def __init__(self, cluster, name):
        self.cluster, self.name = cluster, name

    def json(self, *words):
        result = self.cluster.run("-o", "json", *words)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def row(self, kind="pipeline"):
        return next(r for r in self.json(kind, "list") if r["pipeline"] == self.name)

    def wait(self, **fields):
        def there():
            row = self.row()
            return all(row[key] == value for key, value in fields.items())
        wait_until(there, 60, f"{fields} in `pipeline list`", pause=0.2)

    def wait_documents(self, number, deadline=60):
        wait_until(lambda: count(self.cluster, self.name) == number, deadline,
                   f"{number} documents", pause=0.2)


@pytest.fixture
def operator(cluster, tmp_path, name):
    (tmp_path / "files").mkdir()
    apply(cluster, tmp_path, name, tmp_path / "files")
    yield Operator(cluster, name)
    cluster.run("pipeline", "delete", name)


def test_pause_and_resume(operator, tmp_path):
    write_files(tmp_path / "files", 3)
    operator.wait_documents(3)
    for kind, state in (("source", "source paused"), ("pipeline", "paused")):
        operator.json(kind, "pause", operator.name)
        operator.wait(state=state)
        assert operator.row("source")["state"] == state
    write_files(tmp_path / "files", 2, start=3)
    operator.json("source", "resume", operator.name)
    operator.wait(state="paused")
    assert count(operator.cluster, operator.name) == 3
    operator.json("pipeline", "resume", operator.name)
    operator.wait_documents(5)
    operator.wait(state="running", lag=0, pending=0, collected=5, quarantined=0)


def test_the_record_of_an_old_file_is_young(operator, tmp_path):
    """Retention goes by the time of records, and must not delete what nobody has read."""
    part = tmp_path / "files" / "old.part"
    part.write_text("old")
    os.utime(part, (1_000_000_000, 1_000_000_000))
    part.rename(part.with_suffix(".txt"))
    operator.wait_documents(1)
    reader = Consumer({"bootstrap.servers": operator.cluster.kafka[0], "group.id": operator.name})
    reader.assign([TopicPartition(operator.name, number, 0) for number in range(3)])
    found = wait_until(lambda: reader.poll(1), 30, "the record")
    reader.close()
    assert found.error() is None
    assert abs(time.time() - found.timestamp()[1] / 1000) < 600


def test_a_file_that_cannot_be_collected_stands_in_quarantine(operator, tmp_path):
    path = tmp_path / "files" / "큰 파일.txt"
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        os.truncate(file.fileno(), TOO_LARGE)
    # Given up after the first attempt instead of eight.
    spec = tmp_path / "source.toml"
    whole = local_pipeline(operator.name, tmp_path / "files")
    spec.write_text(f"name = {json.dumps(operator.name)}\n\n"
                    + whole[whole.index("[source]"):] + "max_attempts = 1\n")
    operator.json("source", "apply", spec)
    part.rename(path)
    operator.wait(quarantined=1)

    def given_up():
        (row,) = operator.json("pipeline", "quarantine", operator.name)
        return row

    first = given_up()
    assert (first["what"], first["kind"], first["bytes"]) == (path.name, "file", TOO_LARGE)
    assert first["attempts"] == 1 and "more than 268435456" in first["error"]
    table = operator.cluster.run("pipeline", "quarantine", operator.name)
    assert path.name in table.stdout

    done = operator.json("pipeline", "retry", operator.name)
    assert (done["released"], done["kept"]) == (1, 0)
    wait_until(lambda: operator.row()["quarantined"] == 1
               and given_up()["time_ms"] > first["time_ms"], 60, "the file to be given up again")
    # What changed is another version: it needs no retry.
    path.write_text("subject\nbody\n")
    operator.wait_documents(1)


def test_a_text_larger_than_a_document_may_be_is_found_by_its_beginning(operator, tmp_path):
    line = "시장 회의에서 나온 말 \"그대로\"\n"
    part = tmp_path / "files" / "큰 글.part"
    part.write_text("제목입니다\n\n" + line * 400_000, encoding="cp949")
    assert part.stat().st_size > 10 * 1024 * 1024
    part.rename(part.with_suffix(".txt"))
    # Six MiB of bigrams on three nodes take a while in a development build.
    operator.wait_documents(1, deadline=200)
    operator.wait(quarantined=0)
    (hit,) = search(operator, {"match_phrase": {"body": "회의에서 나온"}})
    assert hit["subject"] == "제목입니다" and hit["body"].startswith(line)
    # More than the record has, and whole characters to the end.
    assert len(hit["body"].encode()) > 5_000_000 and line.startswith(hit["body"].rsplit("\n")[-1])


def test_what_changes_while_it_is_collected_is_collected_again(operator, tmp_path):
    path = tmp_path / "files" / "changes.txt"
    wait_for = {}
    for number in range(40):
        part = path.with_suffix(".part")
        part.write_text(f"subject\nversion {number}\n" + "x" * number)
        part.rename(path)
        wait_for = {"match_phrase": {"body": f"version {number}"}}
        time.sleep(0.05)
    wait_until(lambda: search(operator, wait_for), 60, "the last version")
    assert count(operator.cluster, operator.name) == 1


def search(operator, query):
    """Sources of what a search finds."""
    url = f"http://{operator.cluster.elastic[0]}/{operator.name}/_search"
    answer = requests.post(url, json={"query": query}, timeout=30)
    answer.raise_for_status()
    return [hit["_source"] for hit in answer.json()["hits"]["hits"]]


def test_what_is_wrong_is_said(operator, tmp_path):
    missing = operator.cluster.run("pipeline", "quarantine", "nobody")
    assert missing.returncode == 1 and "nobody" in missing.stderr
    spec = tmp_path / "source.toml"
    spec.write_text(f"name = {json.dumps(operator.name)}\ntopic = 'other'\n[source]\n")
    result = operator.cluster.run("source", "apply", spec)
    assert result.returncode == 1 and "topic" in result.stderr
    spec.write_text("name = 'nobody'\n[source]\ntype = 'local'\npath = '/tmp'\n")
    result = operator.cluster.run("source", "apply", spec)
    assert result.returncode == 1 and "nobody" in result.stderr
    other = local_pipeline(operator.name, tmp_path / "files")
    named = f"name = {json.dumps(operator.name)}"
    assert named in other
    spec.write_text(other.replace(named, f"name = {json.dumps(operator.name + '-2')}"))
    result = operator.cluster.run("pipeline", "apply", spec)
    assert result.returncode == 1 and "overlap" in result.stderr, result.stderr


def test_a_topic_made_anew_gets_every_file(operator, tmp_path):
    write_files(tmp_path / "files", 20)
    operator.wait_documents(20)
    for partitions in (2, 5):
        operator.json("topic", "delete", operator.name)
        operator.json("topic", "create", operator.name, "--partitions", str(partitions))
        wait_until(lambda: len(records(operator.cluster, operator.name)) == 20, 60, "the records")
    write_files(tmp_path / "files", 1, start=20)
    operator.wait_documents(21)
    assert len(records(operator.cluster, operator.name)) == 21
