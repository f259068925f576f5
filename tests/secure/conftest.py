"""A cluster with TLS, SASL and access control."""

import sys

import pytest
from support.cluster import Cluster
from support.paths import ROOT
from support.secured import Certificates, Secured, settings

# Where jvm.py is.
sys.path.append(str(ROOT / "tests" / "clients"))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def secured(certificates):
    """Shared by all tests that break nothing. Use names of your own in it."""
    cluster = Cluster(sets=settings(certificates))
    yield Secured(cluster, certificates)
    cluster.close()
