"""Clients of the WebHDFS port."""

import fsspec
import hdfs
import pytest


class Web:
    """The real clients, one per node of a cluster."""

    def __init__(self, cluster, home):
        self.addresses = cluster.webhdfs
        self.home = home

    def address(self, number=1):
        return self.addresses[number - 1].removeprefix("http://").rstrip("/")

    def url(self, path, op, number=1, user="root", **params):
        more = "".join(f"&{name}={value}" for name, value in params.items())
        return f"http://{self.address(number)}/webhdfs/v1{path}?op={op}&user.name={user}{more}"

    def hdfs(self, number=1, user="root"):
        """PyPI hdfs."""
        return hdfs.InsecureClient(f"http://{self.address(number)}", user=user, root=self.home)

    def fsspec(self, number=1, user="root"):
        host, port = self.address(number).rsplit(":", 1)
        return fsspec.filesystem(
            "webhdfs", host=host, port=int(port), user=user, skip_instance_cache=True,
            use_listings_cache=False,
        )


@pytest.fixture
def web(cluster, name):
    """A directory of its own in the shared cluster."""
    return Web(cluster, f"/{name}")
