# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""published: weights by name from a local server, and hostile archives."""

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
    """Sends `files` by path and records the requested paths; truncates responses after `cut` bytes."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requested, self.cut = {}, [], None
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requested.append(self.path)
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
    """A mirror and an empty cache."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})  # seconds
        thread.start()
        monkeypatch.setenv(published.MIRROR, server.url + "/")
        monkeypatch.setenv(published.CACHE, str(tmp_path / "cache"))
        monkeypatch.chdir(tmp_path)
        yield server
        server.shutdown()
        thread.join()


def member(name, data=b"x", **fields):
    """A member of an archive and its data."""
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
    """An archive of a checkpoint with one variable, in a folder of another name."""
    folder = tmp_path / "made"
    folder.mkdir()
    ModelDir(str(folder)).save(7, {"part/kernel": np.arange(3, dtype=np.float32)})
    members = [member("some-folder", b"", type=tarfile.DIRTYPE)]
    members += [member(f"some-folder/{path.name}", path.read_bytes()) for path in folder.iterdir() if path.is_file()]
    return archive(*members)


def test_weights_are_downloaded_once(server, weights, tmp_path):
    server.files[PATH] = weights
    for _ in range(2):
        prefix = checkpoint.find(NAME)
        assert prefix == str(tmp_path / "cache" / NAME / "some-folder" / "model.ckpt-7")
        np.testing.assert_array_equal(checkpoint.read(NAME, {"part/kernel"}).values["part/kernel"], [0, 1, 2])
    assert server.requested == [PATH]
    record = json.loads((tmp_path / "cache" / f"{NAME}.json").read_text())
    assert record["url"] == server.url + PATH and record["bytes"] == len(weights)
    assert record["sha256"] == hashlib.sha256(weights).hexdigest() and record["date"].startswith("20")
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [NAME, f"{NAME}.json"]


def test_a_local_folder_of_the_same_name_takes_precedence(server, weights, tmp_path):
    (tmp_path / NAME).mkdir()
    ModelDir(str(tmp_path / NAME)).save(1, {"part/kernel": np.zeros(3, np.float32)})
    assert checkpoint.find(NAME) == f"{NAME}/model.ckpt-1"
    assert server.requested == []


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
        ([member("a", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")], "a is not a regular file"),
        ([member("a", b"", type=tarfile.LNKTYPE, linkname="../../b")], "a is not a regular file"),
        ([member("a", b"", type=tarfile.FIFOTYPE)], "a is not a regular file"),
        ([member("a", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=3)], "a is not a regular file"),
        ([member("a"), member("a")], "it contains a twice"),
        ([member("a"), member("a/b")], r"File exists|Not a directory"),
        ([member(f"{i}") for i in range(11)], "more than 10 files"),
        ([member("a.index", bytes(600)), member("b", bytes(600))], "or 1000 bytes"),
    ],
)
def test_hostile_archives_are_refused_and_leave_no_file(server, monkeypatch, tmp_path, members, reason):
    monkeypatch.setattr(published, "MAX_FILES", 10)
    monkeypatch.setattr(published, "MAX_BYTES", 1000)
    server.files[PATH] = archive(*members)
    with pytest.raises(WeightsError, match=rf"is not an archive of weights \(.*{reason}.*\); nothing of it was kept"):
        checkpoint.find(NAME)
    assert list((tmp_path / "cache").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_huge_header_is_not_read(server, tmp_path):
    """An extended header of 200 MB, compressed to a few hundred KB."""
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


def test_a_download_has_a_maximum_size(server, monkeypatch, tmp_path):
    monkeypatch.setattr(published, "MAX_BYTES", 1000)
    server.files[PATH] = bytes(1001)
    with pytest.raises(WeightsError, match=r"cannot download .* \(it has more than 1000 bytes\)"):
        checkpoint.find(NAME)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>sorry</html>", archive(member("a.index", bytes(5000)))[:-30]],
    ids=["empty", "a page", "truncated"],  # explicit, as gzip writes the time into the last
)
def test_damaged_archives_are_refused(server, tmp_path, data):
    server.files[PATH] = data
    with pytest.raises(WeightsError, match="is not an archive of weights"):
        checkpoint.find(NAME)
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_archive_without_a_checkpoint_is_an_error(server):
    server.files[PATH] = archive(member("readme.txt"))
    with pytest.raises(WeightsError, match="contains no checkpoint; remove the folder to download it again"):
        checkpoint.find(NAME)


def test_download_errors_name_the_remedy(server, weights, tmp_path, monkeypatch):
    remedy = "give the path of a checkpoint on this machine, or set EFFICIENTDET_WEIGHTS_URL to the URL of a mirror"
    with pytest.raises(WeightsError, match=rf"{server.url}{PATH} \(404 Not Found\); {remedy}"):
        checkpoint.find(NAME)
    server.files[PATH], server.cut = weights, 100
    with pytest.raises(WeightsError, match=rf"\(.*100 .*{len(weights)}.*|IncompleteRead.*\); {remedy}"):
        checkpoint.find(NAME)
    monkeypatch.setenv(published.MIRROR, "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(WeightsError, match=rf"refused.*\); {remedy}"):
        checkpoint.find(NAME)
    monkeypatch.setenv(published.MIRROR, "nonsense")
    with pytest.raises(WeightsError, match=rf"unknown url type.*\); {remedy}"):
        checkpoint.find(NAME)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_an_error(server, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(published.CACHE, str(tmp_path / "file" / "cache"))
    with pytest.raises(
        WeightsError, match=r"cannot keep .* in .*cache \(Not a directory\); make room .*EFFICIENTDET_CACHE"
    ):
        checkpoint.find(NAME)


def test_concurrent_downloads(server, weights, tmp_path):
    server.files[PATH] = weights
    found = []
    threads = [threading.Thread(target=lambda: found.append(checkpoint.find(NAME))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [str(tmp_path / "cache" / NAME / "some-folder" / "model.ckpt-7")] * 4
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [NAME, f"{NAME}.json"]


def test_unknown_names(server):
    with pytest.raises(checkpoint.CheckpointError, match=r"no checkpoint at efficientdet-d9; .*, or efficientdet-d"):
        checkpoint.find("efficientdet-d9")
    with pytest.raises(checkpoint.CheckpointError, match=r"no checkpoint at runs/voc; .* or an \.h5 file$"):
        checkpoint.find("runs/voc")
    assert server.requested == []


def test_all_models_have_published_weights():
    assert config_lib.MODELS.keys() <= published.ARCHIVES.keys()
    assert set(config_lib.BACKBONES) <= published.ARCHIVES.keys()
    assert published.ARCHIVES["efficientdet-d7x"].endswith("coco2/efficientdet-d7x.tar.gz")


def test_advprop_needs_its_colors():
    plain = config_lib.load("efficientdet-d0")
    published.check_colors("efficientdet-d0", plain.colors)
    with pytest.raises(WeightsError, match="scale_range=true to --hparams") as error:
        published.check_colors("efficientdet-d0-advprop", plain.colors)
    hparams = str(error.value).partition("add ")[2].partition(" to ")[0]
    published.check_colors("efficientdet-d0-advprop", config_lib.load("efficientdet-d0", hparams).colors)


@pytest.mark.parametrize(
    "name, model, keys",
    [
        ("efficientdet-d7x", "efficientdet-d7x", {}),
        ("efficientdet-lite3x", "efficientdet-lite3x", {}),
        ("efficientdet-d2-640", "efficientdet-d2", {"image_size": 640}),
        ("efficientdet-d5-advprop", "efficientdet-d5", published.ADVPROP_COLORS),
    ],
)
def test_models_of_published_names(name, model, keys):
    assert published.model_of(name) == (model, keys)


def test_every_published_detector_has_a_model():
    for name in published.ARCHIVES:
        if name.startswith("efficientdet-"):
            model, keys = published.model_of(name)
            published.check_colors(name, config_lib.load(model, **keys).colors)
    with pytest.raises(WeightsError, match="efficientnet-b0 is a backbone, for --backbone_ckpt in training; choose"):
        published.model_of("efficientnet-b0")
