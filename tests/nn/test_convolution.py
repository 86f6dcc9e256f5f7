"""The convolutions by patches equal the library's in value and gradients.

Tolerances: in double only the order of the sums differs. bfloat16 has 8 bits (2**-8 = 0.4 %), and
the images' gradient rounds up to k * l / stride**2 times, so norms are compared to 1e-2.
"""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, relu

from capsnet.nn import convolution
from capsnet.nn.convolution import OneChannelConvolution, PatchConvolution, convolve

SIZES = {  # images, input and output channels, height and width, kernel's height and width, stride
    "square": (4, 3, 5, 9, 9, 3, 3, 1),
    "one image, stride 2": (1, 4, 7, 11, 8, 5, 3, 2),
    "one channel": (5, 1, 6, 10, 10, 9, 9, 1),
    "pixels left over": (7, 2, 3, 10, 9, 4, 2, 3),
    "one output pixel": (2, 3, 4, 5, 6, 5, 6, 2),
    "stride beyond the kernel": (2, 3, 4, 11, 11, 2, 2, 4),
}


@pytest.fixture(params=SIZES.values(), ids=SIZES)
def case(request) -> list[Tensor | int]:
    return draw(*request.param)


def draw(*sizes: int) -> list[Tensor | int]:
    """Images, weight and bias in double, and the stride."""
    b, c, o, height, width, k, l, stride = sizes  # noqa: E741
    generator = torch.Generator().manual_seed(b)
    shapes = (b, c, height, width), (o, c, k, l), (o,)
    tensors = [torch.randn(shape, dtype=torch.double, generator=generator) for shape in shapes]
    return [*(tensor.requires_grad_() for tensor in tensors), stride]


def value_and_gradients(function, *tensors: Tensor) -> list[Tensor]:
    value = function(*tensors)
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(value.shape, generator=generator).bfloat16().to(value.dtype)
    return [value.detach(), *torch.autograd.grad(value, tensors, direction)]


@pytest.mark.parametrize(
    ("dtype", "chunk_numbers", "tolerance"),
    [(torch.double, 1, 1e-12), (torch.double, 1000, 1e-12), (torch.float32, 2**23, 1e-5),
     (torch.bfloat16, 2**23, 1e-2)],
)  # fmt: skip
def test_patches_equal_the_library_in_double(case, dtype, chunk_numbers, tolerance, monkeypatch):
    monkeypatch.setattr(convolution, "CHUNK_NUMBERS", chunk_numbers)
    *tensors, stride = case
    rounded = [t.detach().to(dtype).requires_grad_() for t in tensors]
    doubles = [t.detach().double().requires_grad_() for t in rounded]
    ours = value_and_gradients(lambda *t: PatchConvolution.apply(*t, stride), *rounded)
    library = value_and_gradients(lambda *t: conv2d(*t, stride=stride), *doubles)
    for found, wanted in zip(ours, library, strict=True):
        assert found.dtype == dtype
        assert (found.double() - wanted).norm() <= tolerance * wanted.norm()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_autocast_of_float32_parameters(memory_format):
    """Both convolutions of the network with an in-place ReLU between them, as the library."""
    cases = draw(3, 1, 32, 28, 28, 9, 9, 1), draw(3, 32, 16, 20, 20, 9, 9, 2)
    (images, *first, _), (_, *second, _) = cases
    images, *tensors = (t.detach().float() for t in (images, *first, *second))
    tensors = [
        t.to(memory_format=memory_format).requires_grad_() if t.dim() == 4 else t.requires_grad_()
        for t in tensors
    ]
    results = []
    for function in (convolve, lambda *t, stride: conv2d(*t, stride=stride)):
        with torch.autocast("cpu", torch.bfloat16):
            hidden = relu(function(images, *tensors[:2], stride=1), inplace=True)
            value = function(hidden, *tensors[2:], stride=2)
        gradients = torch.autograd.grad(value.float().square().sum(), tensors)
        assert value.dtype == torch.bfloat16
        assert all(gradient.dtype == torch.float32 for gradient in gradients)
        results.append([value, *gradients])
    for ours, library in zip(*results, strict=True):
        assert (ours - library).float().norm() <= 1e-2 * library.float().norm()


@pytest.mark.parametrize("kernel", [(9, 9), (4, 2)], ids=str)
def test_one_channel_equals_the_library_and_relu(kernel):
    """Patches of 81 numbers are padded with 7 zeros, patches of 8 with none. In double `convolve`
    is the library's.
    """
    images, *tensors, _ = draw(3, 1, 5, 12, 11, *kernel, 1)
    images = images.detach()
    ours = value_and_gradients(lambda *t: OneChannelConvolution.apply(images, *t), *tensors)
    library = value_and_gradients(lambda *t: relu(convolve(images, *t, stride=1)), *tensors)
    torch.testing.assert_close(ours, library, rtol=1e-12, atol=1e-12)
