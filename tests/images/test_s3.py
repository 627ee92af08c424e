"""Images behind s3:// of a real S3-compatible server, over a line that breaks."""

import contextlib
import json
import logging
import socket
import threading

import numpy as np
import pyarrow as pa
import pyarrow.fs as pf
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import knownot
from helpers import toy
from helpers.shards import encoded, shards
from knownot.cli import group
from knownot.errors import ImagesError
from knownot.images import open_images, remote


class Line:
    """A proxy before the server. breaks: answers that are cut off after `after` bytes, from now on."""

    def __init__(self, port):
        self.server, self.breaks, self.after, self.broken = port, 0, 0, 0
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listening.accept()
                far = socket.create_connection(("127.0.0.1", self.server))
                threading.Thread(target=self.copied, args=(near, far, False), daemon=True).start()
                threading.Thread(target=self.copied, args=(far, near, True), daemon=True).start()

    def copied(self, one, other, answers):
        seen = 0
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                seen += len(data)
                if answers and self.breaks and seen > self.after:
                    self.breaks, self.broken = self.breaks - 1, self.broken + 1
                    break
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture(scope="module")
def line():
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    line = Line(server.get_host_and_port()[1])
    yield line
    line.listening.close()
    server.stop()


def bucket_of(line, retries=3):
    return pf.S3FileSystem(
        access_key="key", secret_key="secret", endpoint_override=f"127.0.0.1:{line.port}", scheme="http",
        region="us-east-1", allow_bucket_creation=True, retry_strategy=pf.AwsStandardS3RetryStrategy(retries),
    )  # fmt: skip


@pytest.fixture(scope="module")
def there(line, tmp_path_factory):
    """(a folder of shards here, url(path) of the same things there)."""
    here = tmp_path_factory.mktemp("s3")
    toy.saved(here)
    x, y = toy.known(60, 4)
    shards(here / "tars", x, y, count=3)
    toy.written(here / "folder", x[:20], y[:20])
    rows = pa.table({"image": [{"bytes": encoded(image), "path": None} for image in x], "label": y})
    pq.write_table(rows, here / "rows.parquet", row_group_size=25)
    bucket = bucket_of(line)
    bucket.create_dir("photos")
    pf.copy_files(str(here), "photos", source_filesystem=pf.LocalFileSystem(), destination_filesystem=bucket)
    where = f"scheme=http&endpoint_override=127.0.0.1:{line.port}&region=us-east-1"
    return here, lambda path: f"s3://key:secret@photos/{path}?{where}"


def rows(images):
    found = list(images.batches(7, None))
    ids = [name for batch in found for name in batch.ids]
    return ids, np.concatenate([batch.labels for batch in found]), np.concatenate([batch.x for batch in found])


@pytest.mark.parametrize("what", ["folder", "tars/part-{000..002}.tar", "rows.parquet"])
def test_images_there_are_those_here(there, what):
    here, url = there
    one, other = open_images(f"{here}/{what}"), open_images(url(what))
    assert other.class_names == one.class_names
    mine, theirs = rows(one), rows(other)
    np.testing.assert_array_equal(mine[1], theirs[1])
    np.testing.assert_array_equal(mine[2], theirs[2])


def verdicts(osc, images, output):
    given = ["predict", str(osc), images, "-o", str(output), "--parts", "3", "--quiet", "--json"]
    done = CliRunner().invoke(group, given, catch_exceptions=False)
    facts = json.loads(done.stdout)
    found = [row for file in sorted(output.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    return facts, [(row["id"], row["label"], row["p_value"]) for row in found]


@pytest.fixture(scope="module")
def osc(there):
    here, _ = there
    made = knownot.fit(
        here / "toy.onnx", *toy.known(200, 2), class_names=toy.CLASSES, preprocess="[0, 1]", detector="energy",
        guarantee="marginal", progress=False,
    )  # fmt: skip
    return made.save(here / "osc")


@pytest.mark.parametrize("what", ["tars/part-{000..002}.tar", "rows.parquet"])
def test_a_line_that_breaks_loses_and_doubles_nothing(there, line, osc, tmp_path, monkeypatch, what):
    monkeypatch.setattr(remote, "WAIT", 0)
    here, url = there
    _, expected = verdicts(osc, f"{here}/{what}", tmp_path / "here")
    assert len(expected) == 60
    line.breaks, line.after, line.broken = 3, 9000, 0
    facts, found = verdicts(osc, url(what), tmp_path / "there")
    assert line.broken == 3
    assert (facts["images"], facts["unreadable"]) == (60, 0)
    assert found == expected


def test_a_line_that_stays_broken_is_an_error_and_the_rest_follows_later(there, line, osc, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "WAIT", 0)
    here, url = there
    _, expected = verdicts(osc, f"{here}/tars/part-{{000..002}}.tar", tmp_path / "here")
    line.breaks, line.after = 10**6, 40_000  # the first, small shard comes through
    with monkeypatch.context() as patch:
        patch.setattr(remote, "_system", lambda *_: bucket_of(line, retries=1))  # it waits long between its own tries
        with pytest.raises(ImagesError, match=r"The shard 's3://.*part-00[12]\.tar' cannot be read after \d+ files"):
            verdicts(osc, url("tars/part-{000..002}.tar"), tmp_path / "there")
    line.breaks = 0
    facts, found = verdicts(osc, url("tars/part-{000..002}.tar"), tmp_path / "there")
    assert facts["there"] > 0
    assert found == expected
