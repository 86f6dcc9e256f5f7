"""Mirrors are asked in turn, checksums are checked, and the small digits look like MNIST's."""

import hashlib
import http.server
import socket
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torchvision.datasets import KMNIST, MNIST

from capsnet.config import load
from capsnet.data import sources
from capsnet.data.mnist import Digits
from stages import download

ROOT = Path(__file__).parents[2]
PIXEL, LABEL = torch.zeros(1, 28, 28, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)
ARCHIVES = {"images.gz": b"images", "labels.gz": b"labels"}


class Mirror(http.server.BaseHTTPRequestHandler):
    """Answers /<how>/<archive>."""

    ended = threading.Event()

    def do_GET(self):
        _, how, name = self.path.split("/")
        if how == "hangs":
            self.ended.wait(5)
        elif how.isdigit():
            self.send_error(int(how))
        else:
            self.send_response(302 if how == "moved" else 200)
            self.send_header("Location", f"/good/{name}")
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write({"wrong": b"wrong!", "drops": b"ima"}.get(how, ARCHIVES[name]))


@pytest.fixture(scope="module")
def server():
    """The URL of the mirror, with two small archives in the place of MNIST's four."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        resources = [(name, hashlib.md5(data).hexdigest()) for name, data in ARCHIVES.items()]
        patch.setattr(MNIST, "resources", resources)
        patch.setattr(sources, "TIMEOUT", 0.2)
        yield f"http://127.0.0.1:{server.server_port}"
    socket.setdefaulttimeout(None)
    Mirror.ended.set()
    server.shutdown()
    server.server_close()


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("form", ["{name}", "file://{root}/{name}"])
def test_a_folder_is_a_mirror(server, tmp_path, capsys, monkeypatch, form):
    """Both checksums are named. A relative path is of the repository: DVC runs an experiment in a
    copy with `--temp` and in the queue.
    """
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path.parent)
    for name in ("bad", "good", "out"):
        (tmp_path / name).mkdir()
    for archive, data in ARCHIVES.items():
        (tmp_path / "good" / archive).write_bytes(data)
        (tmp_path / "bad" / archive).write_bytes(b"images")
    bad, good = (form.format(root=tmp_path, name=name) for name in ("bad", "good"))
    sources.fetch_mnist(tmp_path / "out", [bad, good])
    assert contents(tmp_path / "out") == ARCHIVES
    sums = (hashlib.md5(each).hexdigest() for each in (b"images", b"labels"))
    words = "its MD5 is {}, MNIST's is {}".format(*sums)
    assert capsys.readouterr().out.startswith(f"labels.gz: {bad} ({words})")


@pytest.mark.parametrize("how", ["wrong", "drops", "hangs", "403", "404", "500"])
def test_a_bad_mirror_is_named_and_the_next_one_is_asked(server, tmp_path, capsys, how):
    """Here one that redirects."""
    sources.fetch_mnist(tmp_path, [f"{server}/{how}/", f"{server}/moved"])
    assert contents(tmp_path) == ARCHIVES
    assert f"images.gz: {server}/{how}/ (" in capsys.readouterr().out


def test_without_a_good_mirror_nothing_is_written(server, tmp_path, monkeypatch):
    """MNIST_MIRROR replaces the mirrors of params.yaml. The old digits stay."""
    out = tmp_path / "data" / "digits"
    out.mkdir(parents=True)
    (out / "old").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["download"])
    data = load(ROOT / "params.yaml").data.model_copy(update={"mirrors": [f"{server}/good"]})
    params = SimpleNamespace(source="mnist", data=data)
    monkeypatch.setattr(download, "load", lambda override: params)
    monkeypatch.setattr(sources, "load_digits", lambda folder, split: Digits(PIXEL, LABEL))
    for bad in (f"{server}/drops", str(tmp_path / "nowhere")):
        monkeypatch.setenv("MNIST_MIRROR", bad)
        with pytest.raises(ValueError, match=f"no mirror gave images.gz; tried {bad} .*quick"):
            download.main()
        assert [*out.parent.iterdir()] == [out] and [*out.iterdir()] == [out / "old"]
    monkeypatch.delenv("MNIST_MIRROR")
    download.main()
    assert contents(out).items() > ARCHIVES.items()  # and those of MNIST's names


@pytest.mark.parametrize("local", [None, "nowhere", "wrong"])
def test_without_archives_of_another_set_the_way_out_is_named(tmp_path, monkeypatch, local):
    """DATA_MIRROR, or what is wrong with it. The port of the mirror is closed."""
    monkeypatch.setattr(KMNIST, "mirrors", ["http://127.0.0.1:9/"])
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / KMNIST.resources[0][0]).write_bytes(b"another archive")
    folder = local and str(tmp_path / local)
    named = {None: "DATA_MIRROR=<folder>", "nowhere": f"there is no folder '{folder}'"}
    line = named.get(local, f"{KMNIST.resources[0][0]}.*{folder} lacks")
    with pytest.raises(ValueError, match=line) as caught:
        sources.make("kmnist", tmp_path, sources.Settings(local=folder))
    assert "\n" not in str(caught.value)


def test_small_digits_are_scaled_and_centred_as_in_mnist():
    """The longer side is 20 px, the centre of mass in the middle of 28 up to rounding."""
    images = np.stack([sources.as_mnist(image / 16) for image in load_digits().images[::10]])
    ink = images > 0
    rows, columns = ink.any(axis=2).sum(axis=1), ink.any(axis=1).sum(axis=1)
    assert np.maximum(rows, columns).max() == 20
    centre = (images.sum(axis=2) * np.arange(28)).sum(axis=1) / images.sum(axis=(1, 2))
    assert np.abs(centre - 13.5).max() <= 0.75
