"""A checkpoint restores the network, and a damaged one is an error."""

import math
import os
import re
from unittest.mock import Mock

import pytest
import safetensors.torch
import torch
from torch import nn

from capsnet import checkpoint
from capsnet.nn.registry import network_class

SIZES = dict(image_size=20, conv_channels=8, kernel_size=5, primary_types=2, decoder_sizes=[16])
STEM = dict(channels=[8, 8], kernels=[5, 3], strides=[2, 1], primary_kernel=3)


def save(path, network="capsnet", arguments=SIZES, saved_as=None, **known) -> nn.Module:
    torch.manual_seed(0)
    model = network_class(network)(**arguments).eval()
    checkpoint.save(model, path, network=network, arguments=saved_as or arguments, **known)
    return model


@pytest.mark.parametrize(
    ("network", "arguments"),
    [
        ("capsnet", SIZES | {"init": "authors"}),
        ("capsnet", SIZES | {"decoder_sizes": None}),
        ("convnet", SIZES),
        ("compact", dict(image_size=20, stem=STEM, decoder_sizes=[16])),
        ("baseline", dict(image_size=8, num_digits=2)),
    ],
)
def test_a_loaded_network_equals_the_saved_one(tmp_path, network, arguments):
    """The same predictions bit by bit, and the same memory format: a convolution whose weight is
    not channels last would copy it in every call.
    """
    path = tmp_path / "models" / "net.safetensors"
    size = arguments["image_size"]
    torch.manual_seed(0)
    model = network_class(network)(**arguments)
    model(torch.rand(8, 1, size, size))  # running statistics
    checkpoint.save(model.eval(), path, network=network, arguments=arguments)
    loaded, images = checkpoint.load(str(path)), torch.rand(2, 1, size, size)
    assert torch.equal(loaded(images).lengths, model(images).lengths)
    for (name, found), wanted in zip(loaded.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(found, wanted) and found.stride() == wanted.stride(), name
    assert not loaded.training
    checkpoint.save(model, path.with_name("again"), network=network, arguments=arguments)
    assert path.with_name("again").read_bytes() == path.read_bytes()


def test_16_bit_weights_are_read_as_32_bit(tmp_path):
    """Rounding to 11 bits changes a weight by at most its 2048th part."""
    model = save(tmp_path / "net")
    description, tensors = checkpoint.read(tmp_path / "net")
    checkpoint.write(tmp_path / "half", description, {k: v.half() for k, v in tensors.items()})
    loaded = checkpoint.load(tmp_path / "half")
    for found, wanted in zip(loaded.parameters(), model.parameters(), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted, rtol=2**-11, atol=1e-6)


def test_the_metadata_is_one_key_without_unknown_values(tmp_path):
    """safetensors writes several keys in an order that changes from process to process."""
    path, known = tmp_path / "net", {"validation_error": 23.31, "rejection_threshold": 0.28}
    save(path, **known)
    assert checkpoint.describe(path).items() >= (known | {"network": "capsnet"}).items()
    with safetensors.safe_open(path, framework="pt") as file:
        assert list(file.metadata()) == ["capsnet"]
    save(path, validation_error=math.nan)
    assert not checkpoint.describe(path).keys() & known.keys()


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "net"
    save(path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", Mock(side_effect=OSError("disk full")))
    with pytest.raises(OSError, match=r"cannot write .*net: disk full; what was there before"):
        save(path)
    assert path.read_bytes() == before and len([*tmp_path.iterdir()]) == 1


SOUND = [  # JSON of another type, or that Python cannot read
    ("3", "damaged"), ("{", "damaged"), ('{"format": 3}', "damaged"), ("[" * 100_000, "damaged"),
    ('{"format": 2}', "format 2, this code reads 3"), (None, "not written by capsnet")]  # fmt: skip


@pytest.mark.parametrize(("metadata", "words"), SOUND)
def test_other_files_are_refused(tmp_path, metadata, words):
    path = tmp_path / "net"
    with pytest.raises(ValueError, match="missing: train small networks"):
        checkpoint.load(path)
    known = {} if metadata is None else {"capsnet": metadata}
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, known)
    with pytest.raises(ValueError, match=words):
        checkpoint.load(path)


@pytest.mark.parametrize("place", ["cut", "longer", "size", "header", "metadata", "first", "last"])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, place):
    """Cut, lengthened, or with one other bit in the header, the metadata or the weights."""
    save(path := tmp_path / "net")
    data = bytearray(path.read_bytes())
    weights = 8 + int.from_bytes(data[:8], "little")
    places = {"size": 0, "header": 9, "metadata": data.index(b"conv_channels"), "first": weights}
    if place == "cut":
        del data[-1]
    elif place == "longer":
        data += b"x"
    else:
        data[places.get(place, -1)] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        checkpoint.load(path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "change",
    [{"conv_channels": 4}, {"conv_channels": 10**9}, {"image_size": -5}, {"speed": 3}],
    ids=str,
)
def test_wrong_arguments_take_no_memory(tmp_path, change):
    """The digest is right, but the arguments are those of another network, a huge one or none."""
    save(tmp_path / "net", saved_as=SIZES | change)
    with pytest.raises(ValueError, match="holds no network that this code knows"):
        checkpoint.load(tmp_path / "net")
