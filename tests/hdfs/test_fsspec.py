"""fsspec's webhdfs file system."""

import os

import pytest


def test_write_read_seek(web):
    fs = web.fsspec()
    body = os.urandom(3_000_000)
    path = f"{web.home}/데이터/a b.bin"
    fs.mkdirs(f"{web.home}/데이터", exist_ok=True)
    with fs.open(path, "wb", block_size=1 << 20) as file:
        file.write(body)
    with web.fsspec(2).open(path, "rb") as file:
        file.seek(1_500_000)
        assert file.read(1000) == body[1_500_000:1_501_000]
    assert web.fsspec(3).cat_file(path) == body
    assert fs.info(path)["size"] == len(body)


def test_listing_moving_removing(web):
    fs = web.fsspec()
    fs.mkdirs(f"{web.home}/d", exist_ok=True)
    fs.pipe(f"{web.home}/d/one", b"1")
    fs.mv(f"{web.home}/d/one", f"{web.home}/d/two")
    assert [os.path.basename(path) for path in fs.ls(f"{web.home}/d", detail=False)] == ["two"]
    assert fs.exists(f"{web.home}/d/two") and not fs.exists(f"{web.home}/d/one")
    assert fs.du(f"{web.home}/d") == 1
    assert fs.content_summary(f"{web.home}/d")["fileCount"] == 1
    assert fs.ukey(f"{web.home}/d/two")["length"] == 28
    assert fs.home_directory() == "/user/root"
    fs.rm(f"{web.home}/d", recursive=True)
    with pytest.raises(FileNotFoundError):
        fs.info(f"{web.home}/d")
