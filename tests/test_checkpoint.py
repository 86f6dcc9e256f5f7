"""A network in one file: back with nothing but the file, and never half a file."""

import math
import os
import re

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings, strategies

from capsnet import checkpoint
from capsnet.nn.baseline import BaselineCNN
from capsnet.nn.capsnet import CapsNet

SIZES = dict(image_size=20, conv_channels=8, kernel_size=5, primary_types=2, decoder_sizes=[16])


@pytest.mark.parametrize("changes", [{}, {"init": "authors"}, {"decoder_sizes": None}])
def test_a_network_comes_back_and_predicts_the_same(tmp_path, changes):
    model = CapsNet(**SIZES | changes).eval().to(memory_format=torch.channels_last)
    path = tmp_path / "models" / "net.safetensors"
    checkpoint.save(model, path, network="capsnet", arguments=SIZES | changes)
    loaded = checkpoint.load(path)
    images = torch.rand(2, 1, 20, 20)
    assert not loaded.training and (loaded.decoder is None) == (model.decoder is None)
    torch.testing.assert_close(loaded(images), model(images))
    assert [file.name for file in path.parent.iterdir()] == ["net.safetensors"]


def test_a_baseline_comes_back(tmp_path):
    arguments = dict(image_size=8, num_digits=2)
    model = BaselineCNN(**arguments).eval()
    checkpoint.save(model, tmp_path / "net", network="baseline", arguments=arguments)
    images = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(
        checkpoint.load(str(tmp_path / "net"))(images).lengths, model(images).lengths
    )


def test_same_network_same_bytes(tmp_path):
    model = CapsNet(**SIZES)
    for name in ("one", "two"):
        checkpoint.save(model, tmp_path / name, network="capsnet", arguments=SIZES)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_what_is_known_of_a_network_stays_with_it_under_one_key(tmp_path):
    """Several metadata keys would be written in an order that changes from process to process."""
    model, path = CapsNet(**SIZES), tmp_path / "net"
    known = {"validation_error": 23.31, "rejection_threshold": 0.28}
    checkpoint.save(model, path, network="capsnet", arguments=SIZES, **known)
    assert checkpoint.describe(path).items() >= (known | {"network": "capsnet"}).items()
    with safetensors.safe_open(path, framework="pt") as file:
        assert list(file.metadata()) == ["capsnet"]
    unknown = {"validation_error": math.nan, "rejection_threshold": None}
    checkpoint.save(model, path, network="capsnet", arguments=SIZES, **unknown)
    assert not checkpoint.describe(path).keys() & known.keys()


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "net"
    checkpoint.save(CapsNet(**SIZES), path, network="capsnet", arguments=SIZES)
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match=r"cannot write .*net: disk full; what was there before"):
        checkpoint.save(CapsNet(**SIZES), path, network="capsnet", arguments=SIZES)
    assert path.read_bytes() == before and len([*tmp_path.iterdir()]) == 1


def test_a_folder_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match=r"^cannot write .*net: \S.*; what was there before"):
        checkpoint.save(
            CapsNet(**SIZES), tmp_path / "file" / "net", network="capsnet", arguments=SIZES
        )


def test_other_files_are_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="missing: run `dvc repro`"):
        checkpoint.load(tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        checkpoint.load(tmp_path / "text")
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "foreign")
    with pytest.raises(ValueError, match="not written by capsnet"):
        checkpoint.load(tmp_path / "foreign")
    other = SIZES | {"conv_channels": 4}
    checkpoint.save(CapsNet(**SIZES), tmp_path / "other", network="capsnet", arguments=other)
    with pytest.raises(ValueError, match="no network that this code knows"):
        checkpoint.load(tmp_path / "other")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "net"
    checkpoint.save(CapsNet(**SIZES), path, network="capsnet", arguments=SIZES)
    return path


@given(data=strategies.data())
@settings(max_examples=200, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_file_is_an_error_that_names_it(written, data):
    """Cut, lengthened, bytes changed in the header or the weights, or nothing but noise."""
    whole = written.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    kind = data.draw(strategies.sampled_from(["cut", "longer", "header", "weights", "noise"]))
    damaged = bytearray(whole)
    if kind == "cut":
        damaged = damaged[: data.draw(strategies.integers(0, len(whole) - 1))]
    elif kind == "longer":
        damaged += data.draw(strategies.binary(min_size=1, max_size=100))
    elif kind == "noise":
        damaged = bytearray(data.draw(strategies.binary(max_size=1000)))
    else:
        first, last = (0, header - 1) if kind == "header" else (header, len(whole) - 1)
        for place in data.draw(strategies.lists(strategies.integers(first, last), min_size=1)):
            damaged[place] ^= data.draw(strategies.integers(1, 255))
    path = written.with_name("damaged")
    path.write_bytes(damaged)
    if damaged == whole:  # the same byte was changed twice
        return
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        checkpoint.load(path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"conv_channels": 10**9, "primary_types": 10**9},
        {"conv_channels": 10**30},
        {"image_size": -5},
        {"decoder_sizes": [2**40, 2**40]},
        {"decoder_sizes": "many"},
        {"speed": 3},
    ],
    ids=str,
)
def test_sizes_that_lie_take_no_memory(tmp_path, arguments):
    """The file is whole, digest and all, but its network would not fit any machine or is none."""
    path = tmp_path / "net"
    checkpoint.save(CapsNet(**SIZES), path, network="capsnet", arguments=SIZES | arguments)
    with pytest.raises(ValueError, match="holds no network that this code knows"):
        checkpoint.load(path)


@pytest.mark.parametrize("told", ["[]", "3", "{", "{}", '{"format": 3}', "[" * 100_000])
def test_metadata_that_is_not_ours(tmp_path, told):
    path = tmp_path / "net"
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, {"capsnet": told})
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.load(path)
