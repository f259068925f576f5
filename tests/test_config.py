"""Configuration: mistakes are named with file and line, exit code 2, nothing touched."""

import json
import subprocess

import pytest
import requests

from support.paths import ROOT, TRINE

GOOD = """\
cluster = "t"
node_id = 1
data_dir = "{dir}/data"

[[peers]]
id = 1
host = "127.0.0.1"
[[peers]]
id = 2
host = "127.0.0.2"
[[peers]]
id = 3
host = "127.0.0.3"
"""


def trine(*words, **options):
    return subprocess.run([TRINE, *words], capture_output=True, text=True, timeout=30, **options)


@pytest.fixture
def config(tmp_path):
    def write(old="", new=""):
        text = GOOD.format(dir=tmp_path)
        assert old in text
        path = tmp_path / "node.toml"
        path.write_text(text.replace(old, new, 1))
        return path
    return write


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_shipped_files_are_valid(number):
    result = trine("config", "validate", ROOT / "cluster-config" / f"node{number}.toml")
    assert result.returncode == 0, result.stderr
    assert f"node {number} of cluster" in result.stdout


@pytest.mark.parametrize("old, new, line, words", [
    ("cluster =", "clutser =", 1, 'did you mean "cluster"?'),
    ("node_id = 1", "node_id = 7", 2, "from 1 to 3"),
    ('host = "127.0.0.2"', 'host = "not a host"', 10, "not a host name"),
    ('cluster = "t"', 'cluster = "t', 1, ""),
    ("[[peers]]", "[listen]\nkafka = '127.0.0.1'\n[[peers]]", 6, "IP:port"),
    ("[[peers]]", "[listen]\nkafka = '0.0.0.0:9092'\n[[peers]]", 6, "insecure = true"),
])
@pytest.mark.parametrize("command", [["config", "validate"], ["node", "--config"]])
def test_mistakes_are_named_with_line(config, tmp_path, command, old, new, line, words):
    path = config(old, new)
    result = trine(*command, path)
    assert result.returncode == 2
    assert f"{path}:{line}: " in result.stderr
    assert words in result.stderr
    assert "panicked" not in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["node.toml"]


def test_environment_and_words_override(config):
    path = config()
    result = trine("config", "validate", path, env={"TRINE_WAL_SYNC": "never"})
    assert result.returncode == 2 and "TRINE_WAL_SYNC" in result.stderr
    result = trine("config", "validate", path, "--set", "wal.sync=interval",
                   env={"TRINE_WAL_SYNC": "never"})
    assert result.returncode == 0, result.stderr
    result = trine("config", "validate", path, "--set", "wal.snyc=interval")
    assert result.returncode == 2 and 'did you mean "wal.sync"?' in result.stderr


def test_a_missing_file_is_named(tmp_path):
    result = trine("node", "--config", tmp_path / "none.toml")
    assert result.returncode == 2
    assert "none.toml" in result.stderr


@pytest.mark.parametrize("change, words", [
    (lambda j: j | {"format": 999}, ("node.json", "newer")),
    (lambda j: j | {"node": 2}, ("node.json", "node 2")),
    (lambda j: j | {"name": "elsewhere"}, ("node.json", 'cluster "elsewhere"')),
    # Another cluster of the same name: only the other nodes can tell.
    (lambda j: j | {"cluster": "0123456789abcdef" * 2}, ("belongs to another cluster",)),
])
def test_a_foreign_data_directory_is_refused(own_cluster, change, words):
    cluster = own_cluster()
    node = cluster.node(1)
    # Opening a store looks through its files and mends them: a large one of its own and a small
    # one in a pack must be left as they are, too.
    for path, size in (("large", 3_000_000), ("small", 10)):
        url = f"http://{cluster.webhdfs[0]}/webhdfs/v1/{path}?op=CREATE&user.name=root"
        assert requests.put(url, data=b"x" * size, timeout=30).status_code == 201
    node.stop()
    identity = node.data_dir / "node.json"
    identity.write_text(json.dumps(change(json.loads(identity.read_text()))))
    before = sorted((p, p.stat().st_mtime_ns) for p in node.data_dir.rglob("*") if p.is_file())
    result = trine("node", "--config", node.dir / "node.toml")
    assert result.returncode == 2, result.stderr
    assert str(node.data_dir) in result.stderr and all(w in result.stderr for w in words)
    after = sorted((p, p.stat().st_mtime_ns) for p in node.data_dir.rglob("*") if p.is_file())
    assert after == before
