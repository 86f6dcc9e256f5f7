"""Every data set is read from archives in its own format and goes through all stages."""

import gzip
import struct
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy.io import savemat
from torchvision import datasets

from capsnet import checkpoint
from capsnet.data.archives import ARCHIVES, write_idx
from capsnet.data.mnist import Digits, load_digits
from capsnet.data.registry import DATA_SETS
from capsnet.files import file_md5
from capsnet.reading.recognition import load_reader, read_file
from tests.data.test_pictures import write_pictures
from tests.stages.test_every_run import go_through, write_params

CLASSES = {"emnist_letters": 26, "emnist_balanced": 47, "folder": 3}
RANDOM = np.random.default_rng(0)


def labels_of(count: int, split: str) -> np.ndarray:
    return np.arange(count * {"train": 4, "test": 2}[split]) % count


def make_archives(name: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Noise in the format of the set, whatever its checksum."""
    patch.setattr(datasets.utils, "check_md5", lambda *_, **__: True)
    count, folder = CLASSES.get(name, 10), folder / "archives"
    folder.mkdir()
    for split in ("train", "test"):
        labels = labels_of(count, split)
        images = RANDOM.integers(0, 256, (len(labels), 28, 28), np.uint8)
        if name == "svhn":
            pixels = np.pad(np.stack([images] * 3, 3), ((0, 0), (2, 2), (2, 2), (0, 0)))
            fields = {"X": pixels.transpose(1, 2, 3, 0), "y": np.where(labels, labels, 10)[:, None]}
            savemat(folder / f"{split}_32x32.mat", fields)
        elif name == "qmnist":
            write_idx(folder / f"qmnist-{split}-images-idx3-ubyte.gz", images)
            table = np.repeat(labels[:, None], 8, 1).astype(">i4").tobytes()
            data = gzip.compress(struct.pack(">BBBBII", 0, 0, 12, 2, len(labels), 8) + table)
            (folder / f"qmnist-{split}-labels-idx2-int.gz").write_bytes(data)
        elif name.startswith("emnist"):
            kind = name.removeprefix("emnist_")
            first = kind == "letters"
            parts = {"images-idx3": images.swapaxes(1, 2), "labels-idx1": labels + first}
            for end, array in parts.items():
                path = folder / f"emnist-{kind}-{split}-{end}-ubyte.gz"
                write_idx(path, array)
                with zipfile.ZipFile(folder / "gzip.zip", "a") as archive:
                    archive.write(path, f"gzip/{path.name}")
                path.unlink()
        else:
            for archive, array in zip(ARCHIVES[split], (images, labels), strict=True):
                write_idx(folder / archive, array)
    if name == "mnist":  # whose checksums capsnet checks
        found = [(path.name, file_md5(path)) for path in sorted(folder.iterdir())]
        patch.setattr(datasets.MNIST, "resources", found)


def get(name: str, folder: Path, monkeypatch) -> Digits:
    """Check the parameters and download the set; its test digits."""
    runs = {"one": {"task": "mnist", "network": "compact"}}
    if name == "folder":
        runs["two"] = {"task": "multimnist", "network": "compact"}
    own = {"folder": "pictures", "skip_broken": True, "balance": name == "folder"}
    write_params(folder, runs, dataset=name, validation_fraction=0.25, **own)
    monkeypatch.chdir(folder)
    for variable in ("MNIST_MIRROR", "DATA_MIRROR"):
        monkeypatch.setenv(variable, "archives")
    for stage in ("check", "download"):
        go_through(monkeypatch, stage)
    return load_digits(Path("data/digits"), "test")


def go_on(monkeypatch, *runs: str) -> None:
    for run in runs:
        for stage in ("train", "evaluate", "perturb"):
            go_through(monkeypatch, stage, run)
    go_through(monkeypatch, "report")


@pytest.mark.parametrize("name", [name for name in DATA_SETS if name != "folder"])
def test_a_data_set_is_read(name, tmp_path, monkeypatch, capsys):
    """And goes through all stages."""
    if name != "scikit_learn":
        make_archives(name, tmp_path, monkeypatch)
    if name not in ("svhn", "emnist_balanced"):  # the figures of colour and of 47 classes are drawn
        monkeypatch.setattr(Figure, "draw", lambda figure, renderer: None)
    digits, count = get(name, tmp_path, monkeypatch), CLASSES.get(name, 10)
    assert len(digits.classes) == count and digits.images.shape[-2:] == (28, 28)
    assert digits.num_channels == (3 if name == "svhn" else 1)
    if name != "scikit_learn":
        assert digits.labels.tolist() == labels_of(count, "test").tolist()
    go_on(monkeypatch, "one")
    assert checkpoint.load("models/one.safetensors").decoder.num_classes == count
    confusion = pd.read_csv("reports/quick/runs/one/confusion.csv", dtype=str)
    assert tuple(confusion["label"].unique()) == digits.classes
    assert f" of {count} classes are in" in capsys.readouterr().out


def test_a_folder_of_colours_is_read_drawn_and_served(tmp_path, monkeypatch, capsys):
    """Names in tables and readings, colour in the page, tones for shapes."""
    write_pictures(tmp_path / "pictures")
    for path in (tmp_path / "pictures").rglob("bild*.png"):  # bright borders: no shapes
        path.write_bytes((tmp_path / "pictures" / "Birne 2" / "sixteen.png").read_bytes())
    assert get("folder", tmp_path, monkeypatch).num_channels == 3
    go_on(monkeypatch, "one", "two")
    table = pd.read_csv("reports/quick/runs/one/perturbation.csv")
    assert set(table["measure"]) == {"brightness", "contrast"}
    names = ["Äpfel rot", "Birne 2", "Birne 10"]
    assert list(table["digit"].unique()) == names
    assert " of 3 classes are in" in capsys.readouterr().out
    reader = load_reader("models/one.safetensors")
    for file in ("pictures/Birne 2/turned.jpg", "pictures/Äpfel rot/größe.png"):
        reading = read_file(reader, Path(file))
        assert reading.image.shape == (3, 28, 28) and reading.names[0] in names
        assert np.array_equal(read_file(reader, Path(file).read_bytes()).lengths, reading.lengths)
    assert "explorer" not in Path("models/one.html").read_text()[:100]
