"""Mirrors are asked in turn, checksums are kept, and the small digits look like MNIST's."""

import hashlib
import http.server
import threading

import numpy as np
import pytest
from torchvision.datasets import MNIST

from capsnet.data.mnist import load_digits
from stages import download


@pytest.fixture
def archives(monkeypatch):
    """Two small archives in the place of MNIST's four, with their true checksums."""
    contents = {"images.gz": b"images", "labels.gz": b"labels"}
    resources = [(name, hashlib.md5(data).hexdigest()) for name, data in contents.items()]
    monkeypatch.setattr(MNIST, "resources", resources)
    monkeypatch.setattr(download, "TIMEOUT", 0.5)
    return contents


def mirror(folder, contents) -> str:
    folder.mkdir()
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return str(folder)


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_a_folder_is_a_mirror(tmp_path, archives, out):
    download.fetch_mnist(out, [mirror(tmp_path / "good", archives)])
    assert {path.name: path.read_bytes() for path in out.iterdir()} == archives


def test_a_file_url_is_a_mirror(tmp_path, archives, out):
    download.fetch_mnist(out, ["file://" + mirror(tmp_path / "good", archives)])
    assert {path.name: path.read_bytes() for path in out.iterdir()} == archives


def test_a_wrong_checksum_is_said_aloud_and_the_next_mirror_asked(tmp_path, archives, out, capsys):
    bad = mirror(tmp_path / "bad", archives | {"labels.gz": b"broken"})
    download.fetch_mnist(out, [bad, mirror(tmp_path / "good", archives)])
    assert (out / "labels.gz").read_bytes() == b"labels"
    said = capsys.readouterr().out
    assert f"labels.gz: {bad}: wrong checksum" in said and "images.gz" not in said


class Mirror(http.server.BaseHTTPRequestHandler):
    """Answers for /<how>/<archive>; `contents` are the archives, `ended` frees who hangs."""

    contents: dict[str, bytes]
    ended: threading.Event

    def do_GET(self):
        _, how, name = self.path.split("/")
        data = self.contents[name]
        if how == "hangs":
            self.ended.wait(20)
            return
        if how.isdigit():
            self.send_error(int(how))
            return
        if how == "moved":
            self.send_response(302)
            self.send_header("Location", f"/good/{name}")
            self.end_headers()
            return
        body = {"wrong": b"wrong", "page": b"<html>sign in</html>"}.get(how, data)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Disposition", 'attachment; filename="../../outside"')
        self.end_headers()
        self.wfile.write(body[:3] if how == "drops" else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(archives):
    handler = type("Handler", (Mirror,), {"contents": archives, "ended": threading.Event()})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    handler.ended.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("how", ["good", "moved"])
def test_a_url_is_a_mirror(server, archives, out, how):
    """Also one that sends us on; what name it would give the file does not matter."""
    download.fetch_mnist(out, [f"{server}/{how}/"])
    assert {path.name: path.read_bytes() for path in out.iterdir()} == archives
    assert not [*out.parent.parent.glob("**/outside")]


@pytest.mark.parametrize("how", ["wrong", "page", "drops", "hangs", "403", "404", "500"])
def test_a_bad_mirror_leaves_nothing_and_the_next_is_asked(server, archives, out, capsys, how):
    bad = f"{server}/{how}"
    with pytest.raises(ValueError, match=f"no mirror gave images.gz; tried {bad} ") as caught:
        download.fetch_mnist(out, [bad])
    assert "\n" not in str(caught.value) and not [*out.iterdir()]
    download.fetch_mnist(out, [bad, f"{server}/good"])
    assert {path.name: path.read_bytes() for path in out.iterdir()} == archives
    assert f"images.gz: {bad}: " in capsys.readouterr().out


def test_no_mirror_at_all_names_what_was_tried_and_two_ways_out(tmp_path, archives, out):
    tried = ["http://127.0.0.1:9/", str(tmp_path / "nowhere")]
    with pytest.raises(ValueError) as error:
        download.fetch_mnist(out, tried)
    message = str(error.value)
    assert all(place in message for place in tried) and "\n" not in message
    assert "MNIST_MIRROR=" in message and "-S budget=quick" in message


def test_the_users_mirror_comes_instead_of_the_listed_ones(monkeypatch):
    params = type("Params", (), {"data": type("Data", (), {"mirrors": ("https://a", "https://b")})})
    monkeypatch.delenv("MNIST_MIRROR", raising=False)
    assert download.mirrors(params) == ["https://a", "https://b"]
    monkeypatch.setenv("MNIST_MIRROR", "/my/folder")
    assert download.mirrors(params) == ["/my/folder"]


def test_small_digits_are_scaled_and_centred_as_mnist(tmp_path):
    download.write_small_digits(tmp_path)
    training, test = load_digits(tmp_path, "train"), load_digits(tmp_path, "test")
    assert len(training) == 1500 and len(test) == 297
    assert training.labels.unique().tolist() == list(range(10))
    images = training.images.numpy().astype(float)
    rows, columns = (images > 0).any(axis=2).sum(axis=1), (images > 0).any(axis=1).sum(axis=1)
    assert np.maximum(rows, columns).max() <= 20
    mass = images.sum(axis=(1, 2))
    centre = (images.sum(axis=2) * np.arange(28)).sum(axis=1) / mass
    assert np.abs(centre - 13.5).max() <= 0.75  # centred to the pixel
