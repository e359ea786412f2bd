# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""published: weights by name from a server of our own, and archives that no server should send."""

import hashlib
import http.server
import io
import json
import tarfile
import threading
import tracemalloc

import numpy as np
import pytest

from efficientdet import config as config_lib
from tf2.training.model_dir import ModelDir
from tf2.weights import checkpoint, published
from tf2.weights.published import WeightsError

NAME, PATH = "efficientdet-d0", "/efficientdet/coco2/efficientdet-d0.tar.gz"


class Server(http.server.ThreadingHTTPServer):
    """Sends `files` by path, and notes what was asked for; cuts an answer off after `cut` bytes."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked, self.cut = {}, [], None
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path not in self.server.files:
            self.send_error(404)
            return
        data = self.server.files[self.path]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: self.server.cut])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A mirror, and an empty cache."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv(published.MIRROR, server.url + "/")
        monkeypatch.setenv(published.CACHE, str(tmp_path / "cache"))
        monkeypatch.chdir(tmp_path)
        yield server
        server.shutdown()
        thread.join()


def member(name, data=b"x", **fields):
    """A member of an archive, with its data."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def archive(*members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


@pytest.fixture
def weights(tmp_path):
    """An archive of a checkpoint of one variable, in a folder of another name."""
    folder = tmp_path / "made"
    folder.mkdir()
    ModelDir(str(folder)).save(7, {"part/kernel": np.arange(3, dtype=np.float32)})
    members = [member("some-folder", b"", type=tarfile.DIRTYPE)]
    members += [member(f"some-folder/{path.name}", path.read_bytes()) for path in folder.iterdir() if path.is_file()]
    return archive(*members)


def test_weights_come_once_and_are_read(server, weights, tmp_path):
    server.files[PATH] = weights
    for _ in range(2):
        prefix = checkpoint.find(NAME)
        assert prefix == str(tmp_path / "cache" / NAME / "some-folder" / "model.ckpt-7")
        np.testing.assert_array_equal(checkpoint.read(NAME, {"part/kernel"}).values["part/kernel"], [0, 1, 2])
    assert server.asked == [PATH]
    record = json.loads((tmp_path / "cache" / f"{NAME}.json").read_text())
    assert record["url"] == server.url + PATH and record["bytes"] == len(weights)
    assert record["sha256"] == hashlib.sha256(weights).hexdigest() and record["date"].startswith("20")
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [NAME, f"{NAME}.json"]


def test_what_is_on_this_machine_wins(server, weights, tmp_path):
    (tmp_path / NAME).mkdir()
    ModelDir(str(tmp_path / NAME)).save(1, {"part/kernel": np.zeros(3, np.float32)})
    assert checkpoint.find(NAME) == f"{NAME}/model.ckpt-1"
    assert server.asked == []


def test_a_changed_archive_is_refused_until_it_is_trusted(server, weights, tmp_path):
    server.files[PATH] = weights
    published.fetch(NAME)
    (tmp_path / "cache" / NAME).rename(tmp_path / "cache" / "old")
    server.files[PATH] = archive(member("a.index"))
    with pytest.raises(WeightsError, match=r"has changed: .* if you trust the new efficientdet-d0, remove .*d0\.json"):
        published.fetch(NAME)
    assert not (tmp_path / "cache" / NAME).exists()
    (tmp_path / "cache" / f"{NAME}.json").unlink()
    assert published.fetch(NAME) == str(tmp_path / "cache" / NAME)


@pytest.mark.parametrize(
    "members, reason",
    [
        ([member("../a.index")], "leads out of its folder"),
        ([member("a/../../b.index")], "leads out of its folder"),
        ([member("/tmp/a.index")], "leads out of its folder"),
        ([member("..\\a.index")], "leads out of its folder"),
        ([member("c:a.index")], "leads out of its folder"),
        ([member("a", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")], "a is no plain file"),
        ([member("a", b"", type=tarfile.LNKTYPE, linkname="../../b")], "a is no plain file"),
        ([member("a", b"", type=tarfile.FIFOTYPE)], "a is no plain file"),
        ([member("a", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=3)], "a is no plain file"),
        ([member("a"), member("a")], "File exists"),
        ([member("a"), member("a/b")], r"File exists|Not a directory"),
        ([member(f"{i}") for i in range(11)], "more than 10 files"),
        ([member("a.index", bytes(600)), member("b", bytes(600))], "or 1000 bytes"),
    ],
)
def test_hostile_archives_leave_nothing(server, monkeypatch, tmp_path, members, reason):
    monkeypatch.setattr(published, "MAX_FILES", 10)
    monkeypatch.setattr(published, "MAX_BYTES", 1000)
    server.files[PATH] = archive(*members)
    with pytest.raises(WeightsError, match=rf"is not an archive of weights \(.*{reason}.*\); nothing of it was kept"):
        checkpoint.find(NAME)
    assert list((tmp_path / "cache").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_header_is_not_read_whatever_its_length(server, tmp_path):
    """A member's extended header, of 200 MB in a few hundred KB."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        info, data = member("a.index")
        info.pax_headers = {"comment": "x" * 200_000_000}
        tar.addfile(info, io.BytesIO(data))
    server.files[PATH] = file.getvalue()
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match=r"is not an archive of weights \(it has a header of 200.* bytes\)"):
            checkpoint.find(NAME)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_download_ends_somewhere(server, monkeypatch, tmp_path):
    monkeypatch.setattr(published, "MAX_BYTES", 1000)
    server.files[PATH] = bytes(1001)
    with pytest.raises(WeightsError, match=r"cannot download .* \(it has more than 1000 bytes\)"):
        checkpoint.find(NAME)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>sorry</html>", archive(member("a.index", bytes(5000)))[:-30]],
    ids=["nothing", "a page", "cut off"],  # gzip writes the time into the last
)
def test_what_is_no_whole_archive_is_refused(server, tmp_path, data):
    server.files[PATH] = data
    with pytest.raises(WeightsError, match="is not an archive of weights"):
        checkpoint.find(NAME)
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_archive_without_a_checkpoint_is_told(server):
    server.files[PATH] = archive(member("readme.txt"))
    with pytest.raises(WeightsError, match="holds no checkpoint; remove the folder to download it again"):
        checkpoint.find(NAME)


def test_a_download_that_fails_says_what_to_do(server, weights, tmp_path, monkeypatch):
    remedy = "give the path of a checkpoint on this machine, or set EFFICIENTDET_WEIGHTS_URL to the address of a mirror"
    with pytest.raises(WeightsError, match=rf"{server.url}{PATH} \(404 Not Found\); {remedy}"):
        checkpoint.find(NAME)
    server.files[PATH], server.cut = weights, 100
    with pytest.raises(WeightsError, match=rf"\(.*100 .*{len(weights)}.*|IncompleteRead.*\); {remedy}"):
        checkpoint.find(NAME)
    monkeypatch.setenv(published.MIRROR, "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(WeightsError, match=rf"refused.*\); {remedy}"):
        checkpoint.find(NAME)
    monkeypatch.setenv(published.MIRROR, "nonsense")
    with pytest.raises(WeightsError, match=rf"unknown url type.*\); {remedy}"):
        checkpoint.find(NAME)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_told(server, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(published.CACHE, str(tmp_path / "file" / "cache"))
    with pytest.raises(
        WeightsError, match=r"cannot keep .* in .*cache \(Not a directory\); make room .*EFFICIENTDET_CACHE"
    ):
        checkpoint.find(NAME)


def test_two_at_once(server, weights, tmp_path):
    server.files[PATH] = weights
    found = []
    threads = [threading.Thread(target=lambda: found.append(checkpoint.find(NAME))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [str(tmp_path / "cache" / NAME / "some-folder" / "model.ckpt-7")] * 4
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [NAME, f"{NAME}.json"]


def test_names_that_nobody_published(server):
    with pytest.raises(checkpoint.CheckpointError, match=r"no checkpoint at efficientdet-d9; .*, or efficientdet-d"):
        checkpoint.find("efficientdet-d9")
    with pytest.raises(checkpoint.CheckpointError, match=r"no checkpoint at runs/voc; .* or an \.h5 file$"):
        checkpoint.find("runs/voc")
    assert server.asked == []


def test_all_models_have_published_weights():
    assert config_lib.MODELS.keys() <= published.ARCHIVES.keys()
    assert set(config_lib.BACKBONES) <= published.ARCHIVES.keys()
    assert published.ARCHIVES["efficientdet-d7x"].endswith("coco2/efficientdet-d7x.tar.gz")


def test_advprop_wants_its_colors():
    plain = config_lib.load("efficientdet-d0")
    published.check_colors("efficientdet-d0", plain.colors)
    with pytest.raises(WeightsError, match="scale_range=true to --hparams") as error:
        published.check_colors("efficientdet-d0-advprop", plain.colors)
    hparams = str(error.value).partition("add ")[2].partition(" to ")[0]
    published.check_colors("efficientdet-d0-advprop", config_lib.load("efficientdet-d0", hparams).colors)
