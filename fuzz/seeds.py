#!/usr/bin/env python3
"""Writes well-formed inputs into fuzz/corpus/<target>, so that fuzzing begins behind the first
checks. Run by scripts/fuzz; a seed that is there already is left alone. With `--kafka-keys` prints
the key of each row that the Kafka port serves instead."""

import gzip
import pathlib
import re
import struct
import sys

FUZZ = pathlib.Path(__file__).resolve().parent
CODEC = FUZZ.parent / "src/kafka/src/codec"


def kafka_rows():
    """Key, lowest and highest version and first flexible version of each row of the table."""
    row = re.compile(r"= (\d+), \d+, (\d+)\.\.=(\d+), (NEVER|\d+),")
    for match in row.finditer((CODEC / "table.rs").read_text()):
        key, low, high, flexible = match.groups()
        yield int(key), int(low), int(high), 1 << 15 if flexible == "NEVER" else int(flexible)


def kafka_requests():
    for line in (CODEC / "golden.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        key, version, side, text = line.split()
        if side == "request":
            yield int(key), int(version), bytes.fromhex(text)


def kafka_request():
    for _, _, frame in kafka_requests():
        yield frame


def kafka_body():
    rows = list(kafka_rows())
    for key, version, frame in kafka_requests():
        at = next(i for i, row in enumerate(rows) if row[0] == key)
        _, low, _, flexible = rows[at]
        # api key, version, correlation id, client id "client", and no tags
        head = 16 + (version >= flexible)
        yield bytes([at, version - low]) + frame[head:]


def record_batch():
    record = bytes([22, 0, 0, 0, 2, ord("k"), 2, ord("v"), 2, 2, ord("h"), 1])
    lz4 = bytes.fromhex("04224d18604082") + struct.pack("<I", 1 << 31 | len(record)) + record
    zstd = bytes.fromhex("28b52ffd20") + bytes([len(record)])
    zstd += struct.pack("<I", len(record) << 3 | 1)[:3] + record
    snappy = bytes([len(record), (len(record) - 1) << 2]) + record
    xerial = b"\x82SNAPPY\0" + struct.pack(">iii", 1, 1, len(snappy)) + snappy
    bodies = [
        (0, record), (1, gzip.compress(record)), (2, snappy), (2, xerial),
        (3, lz4 + bytes(4)), (4, zstd),
    ]
    for compression, body in bodies:
        yield struct.pack(
            ">qiibIhiqqqhii", 0, 49 + len(body), 0, 2, 0, compression, 0, 1000, 1000, -1, -1, -1, 1,
        ) + body


def webhdfs():
    for line in [
        "GET a/b%20c?op=OPEN&offset=1&length=10&user.name=bob",
        "PUT a?op=CREATE&overwrite=true&permission=755&blocksize=1048576&replication=2",
        "PUT a?op=RENAME&destination=/b&renameoptions=OVERWRITE",
        "GET ?op=CHECKACCESS&fsaction=r-x&doas=bob&user.name=hdfs",
        "DELETE %ED%9A%8C?op=DELETE&recursive=true",
        "PUT a?op=SETTIMES&modificationtime=1&accesstime=2",
    ]:
        yield line.encode()


def bulk_body():
    yield (
        b'{"index":{"_index":"a","_id":1,"routing":"r","if_seq_no":1,"if_primary_term":1}}\n{"x":1}\n'
        b'{"delete":{"_id":"2"}}\n{"update":{"_id":"3","_source":["x"]}}\n{"doc":{}}\n'
    )
    yield b"refresh=true&version=3&_source=a,b;pretty"


def query():
    for text in [
        '{"bool":{"must":[{"match":{"a":{"query":"x y","operator":"and"}}}],'
        '"filter":[{"range":{"n":{"gte":1,"lt":"now-1d/d"}}}]}}',
        '{"query_string":{"query":"a:(x OR \\"y z\\"~2) AND -b:c* d:[1 TO 5}","fields":["a^2"]}}',
        '{"multi_match":{"query":"x","fields":["a","b^3"],"type":"phrase"}}',
        '{"wildcard":{"a":{"value":"x*y?"}}}',
        '{"properties":{"a":{"type":"text","analyzer":"cjk","fields":{"k":{"type":"keyword"}}},'
        '"d":{"type":"date","format":"yyyy-MM-dd||epoch_millis"}}}',
    ]:
        yield text.encode()


def search_body():
    for text in [
        '{"query":{"match":{"t":"quick fox"}},"sort":[{"n":"desc"},"_doc"],"size":2,"from":1,'
        '"highlight":{"fields":{"t":{}}},"_source":["t*"],"track_total_hits":true}',
        '{"aggs":{"k":{"terms":{"field":"k","size":3},"aggs":{"s":{"stats":{"field":"n"}}}},'
        '"h":{"date_histogram":{"field":"d","calendar_interval":"month","time_zone":"+09:00"}}}}',
        '{"query":{"range":{"d":{"gte":"2024-01-01||/M","lt":"now+1d/d"}}},"min_score":0.1}',
        '{"query":{"function_score":{"query":{"match_all":{}}}}}',
        '{"aggs":{"c":{"cardinality":{"field":"k"}},"p":{"percentiles":{"field":"f"}}},"size":0}',
        't:(quick OR "lazy dog"~2)^3 AND -u:회의* n:[1 TO 5} _exists_:k d:>2024-01-01 /f.x/',
        '+quick | "lazy dog" -fox~1 (a b*)',
    ]:
        yield text.encode()


TARGETS = [kafka_request, kafka_body, record_batch, webhdfs, bulk_body, query, search_body]


def main():
    if sys.argv[1:] == ["--kafka-keys"]:
        print(*(key for key, *_ in kafka_rows()), sep="\n")
        return
    for target in TARGETS:
        if target.__name__ not in sys.argv[1:]:
            continue
        corpus = FUZZ / "corpus" / target.__name__
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(target()):
            path = corpus / f"seed-{number}"
            if not path.exists():
                path.write_bytes(seed)


if __name__ == "__main__":
    main()
