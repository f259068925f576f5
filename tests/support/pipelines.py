"""Sources and pipelines of tests."""

import json
import pathlib


def write_files(root, count, size=2048, start=0):
    """Writes text files into nested directories; returns path below `root` to content."""
    files = {}
    for number in range(start, start + count):
        path = f"d{number // 200}/문서 {number}.txt"
        line = f"subject {number}\n회의 body of file {number} \"quoted\" \\ back\n"
        content = (line * (1 + size // len(line.encode()))).encode()
        full = pathlib.Path(root) / path
        full.parent.mkdir(parents=True, exist_ok=True)
        # Under an ignored name first: a collector that looks now sees no half of it.
        part = full.with_suffix(".part")
        part.write_bytes(content)
        part.rename(full)
        files[path] = content
    return files


def local_pipeline(name, root, settle_ms=300):
    """TOML of a pipeline from a directory to topic, block store and index of the same name."""
    return f"""\
name = {json.dumps(name)}
topic = {json.dumps(name)}
partitions = 3
directory = {json.dumps(f"/datalake/{name}")}
index = {json.dumps(name)}

[source]
type = "local"
path = {json.dumps(str(root))}
settle_ms = {settle_ms}
scan_interval_ms = 500
"""


def apply(cluster, directory, name, root):
    """Applies the pipeline with the command line."""
    path = pathlib.Path(directory) / f"{name}.toml"
    path.write_text(local_pipeline(name, root))
    result = cluster.run("pipeline", "apply", path)
    assert result.returncode == 0, result.stderr
