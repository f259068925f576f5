"""Fixtures shared by all black-box tests."""

import pathlib
import sys
import uuid

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from support.cluster import Cluster  # noqa: E402
from support.demo import Demo  # noqa: E402
from support.network import leave_for_own_network  # noqa: E402
from support.paths import TRINE  # noqa: E402


def pytest_configure(config):
    # One of several processes that run tests.
    if hasattr(config, "workerinput"):
        leave_for_own_network()


# Files that take minutes; first, so that no process is left alone with one at the end.
LONG = ("test_failover.py", "test_torture.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONG)


def pytest_sessionstart(session):
    if not TRINE.exists():
        pytest.exit(f"{TRINE} is missing; run scripts/test, or cargo build", 2)


@pytest.fixture(scope="session")
def cluster():
    """A cluster shared by all tests that break nothing. Use names of your own in it."""
    shared = Cluster(sets=["disk.reserve_bytes=0"])
    yield shared
    shared.close()


@pytest.fixture
def own_cluster():
    """Makes clusters for tests that kill or wipe nodes."""
    made = []

    def make(**options):
        options.setdefault("sets", ["disk.reserve_bytes=0"])
        made.append(Cluster(**options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def demo(tmp_path):
    """`trine demo` whose SFTP server serves what a test puts there."""
    made = Demo(tmp_path / "demo")
    yield made
    made.close()


@pytest.fixture
def name():
    """A name nobody has used, valid as topic, index and path."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def figure(record_property):
    """Notes a measured figure, shown at the end of the run."""
    return lambda text: record_property("figure", text)


FIGURES = []


def pytest_runtest_logreport(report):
    if report.when == "teardown":
        name = report.nodeid.rpartition("::")[2]
        FIGURES.extend(f"{name}: {text}" for what, text in report.user_properties
                       if what == "figure")


def pytest_terminal_summary(terminalreporter):
    if FIGURES:
        terminalreporter.section("figures")
        for line in FIGURES:
            terminalreporter.write_line(line)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Shows the end of the nodes' logs with a failure."""
    report = yield
    if report.failed and call.when == "call":
        found = item.funcargs.get("cluster")
        if isinstance(found, Cluster):
            for node in found.nodes:
                report.sections.append((f"log of node {node.number}", node.log_tail()))
    return report
