"""Convolution without padding, as matrix products of patches where the library is slow.

Same meaning and gradients as `torch.nn.functional.conv2d`. Not in the paper, only for speed: on a
CPU almost all of a training step is the 9x9 convolution of the primary capsules. With channels last
a patch is a few contiguous runs, so copying patches is cheap and the rest is a plain matrix
product. No patch is saved for the backward pass: the patches are made again. On CUDA the library is
fast, but for the first convolution, whose one channel it pads to eight.

Legend of the suffixes: b image, c input channel, o output channel, h and w input pixel, y and x
output pixel, k and l row and column of the kernel, n = (b, y, x) one patch, q = (k, l, c) one
number of a patch.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_NUMBERS = 2**23  # numbers in the buffer of patches: 16 MiB of bfloat16


def convolve_relu(
    images_bchw: Tensor, weight_ochw: Tensor, bias_o: Tensor, *, stride: int
) -> Tensor:
    """ReLU of `convolve`, in place because this is the largest tensor of a network.

    On CUDA under autocast, one channel and stride 1 take `OneChannelConvolution`.
    """
    device = images_bchw.device.type
    first = images_bchw.shape[1] == 1 and stride == 1 and not images_bchw.requires_grad
    if device == "cuda" and first and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        tensors = (tensor.to(dtype) for tensor in (images_bchw, weight_ochw, bias_o))
        return OneChannelConvolution.apply(*tensors)
    features = convolve(images_bchw, weight_ochw, bias_o, stride=stride)
    return torch.nn.functional.relu(features, inplace=True)


def convolve(
    images_bchw: Tensor, weight_ochw: Tensor, bias_o: Tensor | None, *, stride: int
) -> Tensor:
    """Convolve [b, c, h, w] to [b, o, y, x] without padding, in autocast's dtype if it is on.

    Fastest when images and weight are `torch.channels_last`: then neither is copied. The result is
    memory that no gradient needs, so an in-place ReLU may follow.
    """
    if images_bchw.device.type != "cpu":
        return torch.nn.functional.conv2d(images_bchw, weight_ochw, bias_o, stride)
    autocast = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if autocast else images_bchw.dtype
    # Measured on a Xeon with AMX, oneDNN / patches in ms of one core, 256 -> 256 channels, 9x9,
    # stride 2. In bfloat16, 128 maps of 20x20: value 399 / 271, images' gradient 887 / 290,
    # weight's gradient 1136 / 245; in float32, 16 maps: value 80 / 62, all gradients 220 / 137. On
    # maps of 28x28 the gain is less, value in bfloat16 none. Other devices, dtypes: not measured.
    if dtype not in (torch.bfloat16, torch.float32):
        return torch.nn.functional.conv2d(images_bchw, weight_ochw, bias_o, stride)
    tensors = (None if t is None else t.to(dtype) for t in (images_bchw, weight_ochw, bias_o))
    return PatchConvolution.apply(*tensors, stride)


class PatchConvolution(torch.autograd.Function):
    """The convolution by patches of tensors that share one dtype, whichever it is."""

    @staticmethod
    def forward(
        ctx, images_bchw: Tensor, weight_ochw: Tensor, bias_o: Tensor | None, stride: int
    ) -> Tensor:
        ctx.save_for_backward(images_bchw, weight_ochw)
        ctx.stride = stride
        return _value(images_bchw, weight_ochw, bias_o, stride)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient_boyx: Tensor) -> tuple[Tensor | None, ...]:
        images_bchw, weight_ochw = ctx.saved_tensors
        needs_images, needs_weight, needs_bias, _ = ctx.needs_input_grad
        gradient_byxo = _channels_last(gradient_boyx)
        images = weight = bias = None
        if needs_images:
            images = _images_gradient(gradient_byxo, weight_ochw, images_bchw.shape, ctx.stride)
        if needs_weight:
            weight = _weight_gradient(gradient_byxo, images_bchw, weight_ochw.shape, ctx.stride)
        if needs_bias:  # as a matrix product: the library's sum over rows takes six times as long
            gradient_no = gradient_byxo.flatten(0, 2)
            bias = (gradient_no.new_ones(1, len(gradient_no)) @ gradient_no)[0]
        return images, weight, bias, None


class OneChannelConvolution(torch.autograd.Function):
    """ReLU of the convolution of [b, 1, h, w] with stride 1, by patches of tensors of one dtype.

    Bias and ReLU are part of the matrix product. The patches, some 80 numbers each, are saved, with
    zeros up to the next multiple of 8 that the matrix units want. Images get no gradient.
    """

    @staticmethod
    def forward(ctx, images_bchw: Tensor, weight_ochw: Tensor, bias_o: Tensor) -> Tensor:
        num_outputs, _, num_rows, num_columns = weight_ochw.shape
        size = num_rows * num_columns
        padding = (0, -size % 8)
        patches_byxq = _patches(_channels_last(images_bchw), weight_ochw.shape, 1).flatten(3)
        patches_nq = torch.nn.functional.pad(patches_byxq, padding).flatten(0, 2)
        weight_oq = torch.nn.functional.pad(weight_ochw.reshape(num_outputs, size), padding)
        value_no = torch._addmm_activation(bias_o, patches_nq, weight_oq.t())  # its default: ReLU
        ctx.save_for_backward(patches_nq, value_no)
        ctx.shape = weight_ochw.shape
        return value_no.view(*patches_byxq.shape[:3], num_outputs).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient_boyx: Tensor) -> tuple[Tensor | None, ...]:
        patches_nq, value_no = ctx.saved_tensors
        gradient_no = _channels_last(gradient_boyx).flatten(0, 2)
        gradient_no = torch.ops.aten.threshold_backward(gradient_no, value_no, 0)
        weight_oq = (gradient_no.t() @ patches_nq)[:, : ctx.shape[2] * ctx.shape[3]]
        bias_o = (gradient_no.new_ones(1, len(gradient_no)) @ gradient_no)[0]
        return None, weight_oq.view(ctx.shape), bias_o


def _value(images_bchw: Tensor, weight_ochw: Tensor, bias_o: Tensor | None, stride: int) -> Tensor:
    """A few images at a time, whole patches: the matrix product does the whole sum."""
    patches_byxklc = _patches(_channels_last(images_bchw), weight_ochw.shape, stride)
    weight_qo = _matrix(weight_ochw).t()
    bias_o = weight_qo.new_zeros(len(weight_ochw)) if bias_o is None else bias_o
    num_images, num_rows, num_columns = patches_byxklc.shape[:3]
    # Not a permuted view of [b, y, x, o]: autograd forbids changing a view made here in place.
    value_boyx = torch.empty(
        (num_images, len(weight_ochw), num_rows, num_columns),
        dtype=images_bchw.dtype,
        device=images_bchw.device,
        memory_format=torch.channels_last,
    )
    value_no = value_boyx.permute(0, 2, 3, 1).view(-1, len(weight_ochw))
    chunk = _chunk(num_images, patches_byxklc[0].numel())
    buffer = images_bchw.new_empty(chunk * patches_byxklc[0].numel())
    values_no = value_no.split(chunk * num_rows * num_columns)
    for chunk_byxklc, chunk_no in zip(patches_byxklc.split(chunk), values_no, strict=True):
        patches_nq = _copy(chunk_byxklc, buffer).view(len(chunk_no), -1)
        torch.addmm(bias_o, patches_nq, weight_qo, out=chunk_no)
    return value_boyx


def _weight_gradient(
    gradient_byxo: Tensor, images_bchw: Tensor, shape_ochw: torch.Size, stride: int
) -> Tensor:
    """A few rows of the kernel at a time, all images: the matrix product does the whole sum."""
    patches_byxklc = _patches(_channels_last(images_bchw), shape_ochw, stride)
    gradient_on = gradient_byxo.flatten(0, 2).t()
    num_outputs, num_channels, num_rows, num_columns = shape_ochw
    weight_oklc = gradient_byxo.new_empty(num_outputs, num_rows, num_columns, num_channels)
    numbers_each = patches_byxklc[:, :, :, 0].numel()
    chunk = _chunk(num_rows, numbers_each)
    buffer = images_bchw.new_empty(chunk * numbers_each)
    chunks = zip(patches_byxklc.split(chunk, dim=3), weight_oklc.split(chunk, dim=1), strict=True)
    for rows_byxklc, rows_oklc in chunks:
        patches_nq = _copy(rows_byxklc, buffer).view(gradient_on.shape[1], -1)
        rows_oklc.copy_((gradient_on @ patches_nq).view_as(rows_oklc))
    return weight_oklc.permute(0, 3, 1, 2)


def _images_gradient(
    gradient_byxo: Tensor, weight_ochw: Tensor, shape_bchw: torch.Size, stride: int
) -> Tensor:
    """Every output pixel adds its patch to its image, in the dtype of the images.

    The patches of one output row of a few images are made at a time. Adding in float32 instead
    brings the error in bfloat16 from 0.5 % to 0.2 % and takes about 30 % longer.
    """
    num_images, num_channels, height, width = shape_bchw
    weight_oq = _matrix(weight_ochw)
    images_bhwc = gradient_byxo.new_zeros(num_images, height, width, num_channels)
    numbers_each = gradient_byxo.shape[2] * weight_oq.shape[1]
    chunk = _chunk(num_images, numbers_each)
    buffer = gradient_byxo.new_empty(chunk * numbers_each).view(-1, weight_oq.shape[1])
    chunks = zip(images_bhwc.split(chunk), gradient_byxo.split(chunk), strict=True)
    for chunk_bhwc, chunk_byxo in chunks:
        windows_byxklc = _patches(chunk_bhwc, weight_ochw.shape, stride)  # a view to add to
        for y in range(chunk_byxo.shape[1]):
            gradient_no = chunk_byxo[:, y].flatten(0, 1)
            patches_nq = torch.mm(gradient_no, weight_oq, out=buffer[: len(gradient_no)])
            patches_bxklc = patches_nq.view_as(windows_byxklc[:, y])
            for x in range(chunk_byxo.shape[2]):  # one pixel at a time, for the windows overlap
                windows_byxklc[:, y, x] += patches_bxklc[:, x]
    return images_bhwc.permute(0, 3, 1, 2)


def _patches(images_bhwc: Tensor, shape_ochw: torch.Size, stride: int) -> Tensor:
    """All patches [b, y, x, k, l, c], as a view of the images: no memory until it is copied."""
    patches_byxckl = images_bhwc.unfold(1, shape_ochw[2], stride).unfold(2, shape_ochw[3], stride)
    return patches_byxckl.permute(0, 1, 2, 4, 5, 3)


def _channels_last(images_bchw: Tensor) -> Tensor:
    return images_bchw.permute(0, 2, 3, 1).contiguous()  # [b, h, w, c]; copies only if it must


def _matrix(weight_ochw: Tensor) -> Tensor:
    return _channels_last(weight_ochw).flatten(1)  # [o, q]


def _chunk(total: int, numbers_each: int) -> int:
    """Size of nearly equal chunks of `total` things that fit the buffer, at least 1."""
    num_chunks = -(-total * numbers_each // CHUNK_NUMBERS)
    return -(-total // num_chunks)


def _copy(view: Tensor, buffer: Tensor) -> Tensor:
    return buffer[: view.numel()].view(view.shape).copy_(view)
