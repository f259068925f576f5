"""Fixtures of the Elasticsearch port's tests."""

import pytest


@pytest.fixture
def urls(cluster):
    """URLs of the shared cluster's nodes."""
    return [f"http://{address}" for address in cluster.elastic]
