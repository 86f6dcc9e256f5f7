"""The patches must be the library's convolution: value and the three gradients, for any sizes.

Tolerances: double differs by the order of the sums only; bfloat16 keeps 8 bits (2**-8 = 0.4 %), and
the sum of patches in the images' gradient rounds up to k * l / stride**2 times, so norms are
compared to 1e-2.
"""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, relu

from capsnet.nn import convolution
from capsnet.nn.convolution import OneChannelConvolution, PatchConvolution, convolve

SIZES = {  # images, input and output channels, height and width, kernel's height and width, stride
    "square": (4, 3, 5, 9, 9, 3, 3, 1),
    "stride 2": (3, 8, 6, 12, 12, 5, 5, 2),
    "one image": (1, 4, 7, 11, 8, 5, 3, 2),
    "one channel": (5, 1, 6, 10, 10, 9, 9, 1),
    "pixels left over": (7, 2, 3, 10, 9, 4, 2, 3),
    "one output pixel": (2, 3, 4, 5, 6, 5, 6, 2),
    "stride beyond the kernel": (2, 3, 4, 11, 11, 2, 2, 4),
}


@pytest.fixture(params=SIZES.values(), ids=SIZES)
def case(request) -> tuple[Tensor, Tensor, Tensor, int]:
    return make(*request.param)


def make(b: int, c: int, o: int, h: int, w: int, k: int, l: int, stride: int, dtype=torch.double):  # noqa: E741
    generator = torch.Generator().manual_seed(b)
    images, weight, bias = (
        torch.randn(shape, dtype=torch.double, generator=generator).to(dtype).requires_grad_()
        for shape in ((b, c, h, w), (o, c, k, l), (o,))
    )
    return images, weight, bias, stride


def value_and_gradients(function, *tensors: Tensor) -> list[Tensor]:
    value = function(*tensors)
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(value.shape, generator=generator).bfloat16().to(value.dtype)
    return [value.detach(), *torch.autograd.grad(value, tensors, direction)]


@pytest.mark.parametrize("chunk_numbers", [1, 1000, 2**23])
def test_equals_the_library_in_double(case, chunk_numbers, monkeypatch):
    monkeypatch.setattr(convolution, "CHUNK_NUMBERS", chunk_numbers)
    *tensors, stride = case
    ours = value_and_gradients(lambda *t: PatchConvolution.apply(*t, stride), *tensors)
    library = value_and_gradients(lambda *t: conv2d(*t, stride=stride), *tensors)
    torch.testing.assert_close(ours, library, rtol=1e-12, atol=1e-12)


def test_gradcheck():
    *tensors, stride = make(2, 2, 3, 6, 5, 3, 2, 2)
    assert torch.autograd.gradcheck(lambda *t: PatchConvolution.apply(*t, stride), tensors)


def test_bfloat16_is_close_to_the_library_in_double(case):
    *tensors, stride = case
    rounded = [t.detach().bfloat16().requires_grad_() for t in tensors]
    doubles = [t.detach().double().requires_grad_() for t in rounded]
    ours = value_and_gradients(lambda *t: convolve(*t, stride=stride), *rounded)
    library = value_and_gradients(lambda *t: conv2d(*t, stride=stride), *doubles)
    for got, wanted in zip(ours, library, strict=True):
        assert got.dtype == torch.bfloat16
        assert (got.double() - wanted).norm() <= 1e-2 * wanted.norm()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_autocast_of_float32_parameters(memory_format):
    """Both convolutions of the network with a ReLU in place between them, like the library's."""
    images, *first, _ = make(3, 1, 32, 28, 28, 9, 9, 1, dtype=torch.float32)
    _, *second, _ = make(3, 32, 16, 20, 20, 9, 9, 2, dtype=torch.float32)
    images = images.detach().to(memory_format=memory_format)
    for weight in (first[0], second[0]):
        weight.data = weight.data.to(memory_format=memory_format)
    results = []
    for function in (convolve, lambda *t, stride: conv2d(*t, stride=stride)):
        with torch.autocast("cpu", torch.bfloat16):
            hidden = relu(function(images, *first, stride=1), inplace=True)
            value = function(hidden, *second, stride=2)
        gradients = torch.autograd.grad(value.float().square().sum(), [*first, *second])
        assert value.dtype == torch.bfloat16
        assert all(gradient.dtype == torch.float32 for gradient in gradients)
        results.append([value, *gradients])
    for ours, library in zip(*results, strict=True):
        assert (ours - library).float().norm() <= 1e-2 * library.float().norm()


def test_only_the_gradients_asked_for(monkeypatch):
    images, weight, bias, stride = make(2, 3, 4, 8, 8, 3, 3, 2, dtype=torch.bfloat16)
    monkeypatch.setattr(convolution, "_images_gradient", None)  # would raise if it were called
    convolve(images.detach(), weight, bias, stride=stride).sum().backward()
    assert weight.grad is not None and bias.grad is not None
    monkeypatch.undo()
    monkeypatch.setattr(convolution, "_weight_gradient", None)
    convolve(images, weight.detach(), None, stride=stride).sum().backward()
    assert images.grad is not None


def test_without_bias():
    images, weight, _, stride = make(2, 3, 4, 8, 8, 3, 3, 2)
    ours = PatchConvolution.apply(images, weight, None, stride)
    torch.testing.assert_close(ours, conv2d(images, weight, stride=stride), rtol=1e-12, atol=1e-12)


def test_same_bits_every_time():
    *tensors, stride = make(17, 16, 32, 20, 20, 9, 9, 2, dtype=torch.bfloat16)
    first, *others = (
        value_and_gradients(lambda *t: convolve(*t, stride=stride), *tensors) for _ in range(4)
    )
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


def test_float32_equals_the_library(case):
    *doubles, stride = case
    tensors = [t.detach().float().requires_grad_() for t in doubles]
    ours = value_and_gradients(lambda *t: convolve(*t, stride=stride), *tensors)
    library = value_and_gradients(lambda *t: conv2d(*t, stride=stride), *tensors)
    torch.testing.assert_close(ours, library, rtol=1e-4, atol=1e-4)


def test_double_is_the_library():
    images, weight, bias, stride = make(2, 3, 4, 8, 8, 3, 3, 2)
    assert torch.equal(
        convolve(images, weight, bias, stride=stride), conv2d(images, weight, bias, stride)
    )


def test_does_not_save_patches():
    """Saved for the backward pass: the images and the weight, nothing else."""
    images, weight, bias, stride = make(4, 8, 8, 20, 20, 9, 9, 2, dtype=torch.bfloat16)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda t: t):
        convolve(images, weight, bias, stride=stride)
    assert [t.shape for t in saved] == [images.shape, weight.shape]


@pytest.mark.parametrize("kernel", [(9, 9), (4, 2)], ids=str)
def test_one_channel_equals_the_library_and_relu(kernel):
    """81 numbers a patch get 7 zeros, 8 numbers none."""
    images, weight, bias, _ = make(3, 1, 5, 12, 11, *kernel, 1)
    tensors = weight, bias
    ours = value_and_gradients(
        lambda *t: OneChannelConvolution.apply(images.detach(), *t), *tensors
    )
    library = value_and_gradients(lambda *t: relu(conv2d(images.detach(), *t)), *tensors)
    torch.testing.assert_close(ours, library, rtol=1e-12, atol=1e-12)
