"""elasticsearch-py 7 and 8 and opensearch-py through all nodes, each in its own environment."""

import json
import pathlib
import subprocess

import pytest
from support.paths import python_of

CASES = pathlib.Path(__file__).with_name("client_cases.py")


@pytest.mark.parametrize("venv, module, version, told", [
    ("es7", "elasticsearch", "7.", "7."),
    ("main", "elasticsearch", "8.", "8."),
    ("main", "opensearchpy", "3.", "7.10.2"),
], ids=["elasticsearch-7", "elasticsearch-8", "opensearch"])
def test_a_client_does_what_applications_do(urls, name, venv, module, version, told):
    """The version that the server tells is one that the client accepts."""
    done = subprocess.run([python_of(venv), CASES, module, json.dumps(urls), name],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-4000:]
    client, server = done.stdout.split()
    assert client.startswith(version) and server.startswith(told), done.stdout
