"""PyPI hdfs against the WebHDFS port of every node."""

import hashlib
import os

import hdfs
import pytest

NAMES = [
    "plain.txt", "회의 자료 2024.txt", "100%+a&b=c#d.txt", "'quoted' \"both\".txt",
    "\u1112\u1161\u11ab\u1100\u1173\u11af.txt",  # Hangul in NFD
]


@pytest.mark.parametrize("filename", NAMES)
def test_write_read_list_any_name(web, filename):
    client = web.hdfs()
    body = ("내용 " * 100 + filename).encode()
    client.write(filename, data=body)
    for number in (1, 2, 3):
        with web.hdfs(number).read(filename) as reader:
            assert reader.read() == body
    assert client.list("") == [filename]
    status = client.status(filename)
    assert (status["length"], status["type"], status["permission"]) == (len(body), "FILE", "644")


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1 << 20, (1 << 20) + 1, 7_654_321])
def test_sizes_and_ranges(web, size):
    client = web.hdfs()
    body = os.urandom(size)
    client.write("f", data=body)
    with web.hdfs(2).read("f") as reader:
        assert hashlib.sha256(reader.read()).digest() == hashlib.sha256(body).digest()
    half = size // 2
    with web.hdfs(3).read("f", offset=half, length=100) as reader:
        assert reader.read() == body[half:half + 100]


def test_streamed_upload_and_append(web):
    client = web.hdfs()
    with client.write("s", encoding="utf-8") as writer:
        for n in range(1000):
            writer.write(f"줄 {n}\n")
    client.write("s", data=b"tail", append=True)
    with client.read("s", encoding="utf-8") as reader:
        text = reader.read()
    assert text == "".join(f"줄 {n}\n" for n in range(1000)) + "tail"


def test_small_files_in_different_blocks_have_hadoops_checksum(web):
    client = web.hdfs()
    body = os.urandom(3_000_000)
    client.write("whole", data=body)
    client.write("parts", data=body[:1_234_567])
    client.write("parts", data=body[1_234_567:], append=True)
    whole, parts = client.checksum("whole"), web.hdfs(2).checksum("parts")
    assert whole == parts
    assert whole["algorithm"] == "MD5-of-0MD5-of-512CRC32C" and whole["length"] == 28


def test_directories_rename_delete(web):
    client = web.hdfs()
    client.makedirs("a/b/c")
    client.write("a/b/c/f", data=b"x")
    assert [(path, dirs, files) for path, dirs, files in client.walk("")] == [
        (web.home, ["a"], []), (f"{web.home}/a", ["b"], []),
        (f"{web.home}/a/b", ["c"], []), (f"{web.home}/a/b/c", [], ["f"]),
    ]
    client.rename("a/b/c/f", "g")
    assert client.content("")["fileCount"] == 1
    assert client.content("")["directoryCount"] == 4
    assert client.delete("a", recursive=True)
    assert client.list("") == ["g"]
    assert not client.delete("nothing")


def test_attributes(web):
    client = web.hdfs()
    client.write("f", data=b"x", permission="600", replication=2)
    client.set_owner("f", owner="alice", group="users")
    client.set_times("f", access_time=5_000, modification_time=6_000)
    client.set_replication("f", 1)
    status = web.hdfs(3).status("f")
    assert status["owner"] == "alice" and status["group"] == "users"
    assert status["accessTime"] == 5_000 and status["modificationTime"] == 6_000
    assert status["permission"] == "600" and status["replication"] == 1
    client.set_permission("f", "640")
    assert client.status("f")["permission"] == "640"
    assert client.acl_status("f")["owner"] == "alice"


def test_errors_are_hadoops(web):
    client = web.hdfs()
    client.write("d/f", data=b"x")
    for wrong, exception in [
        (lambda: client.status("zz"), "FileNotFoundException"),
        (lambda: client.list("zz"), "FileNotFoundException"),
        (lambda: client.read("zz").__enter__(), "FileNotFoundException"),
        (lambda: client.write("d/f", data=b"y"), "FileAlreadyExistsException"),
        (lambda: client.delete("d"), "PathIsNotEmptyDirectoryException"),
        (lambda: client.makedirs("d/f/g"), "ParentNotDirectoryException"),
        (lambda: client.makedirs("x" * 256), "PathComponentTooLongException"),
        (lambda: web.hdfs(user="bob").makedirs("bobs"), "AccessControlException"),
    ]:
        with pytest.raises(hdfs.HdfsError) as error:
            wrong()
        assert error.value.exception == exception, error.value
    with client.read("d/f") as reader:
        assert reader.read() == b"x"


def test_upload_of_a_tree(web, tmp_path):
    for n in range(30):
        path = tmp_path / "tree" / f"하위 {n % 3}" / f"{n}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(n * 1000))
    client = web.hdfs()
    client.makedirs("")
    client.upload("up", str(tmp_path / "tree"), n_threads=4)
    web.hdfs(2).download("up", str(tmp_path / "back"), n_threads=4)
    sources = [path for path in (tmp_path / "tree").rglob("*") if path.is_file()]
    assert len(sources) == 30
    for source in sources:
        copy = tmp_path / "back" / source.relative_to(tmp_path / "tree")
        assert copy.read_bytes() == source.read_bytes()
