"""Convolution without padding as matrix products of patches (im2col).

Same value and gradients as `torch.nn.functional.conv2d`, faster on a CPU, where the 9x9 convolution
of the primary capsules takes most of a training step. Patches are recomputed in the backward pass.
On CUDA only the first convolution uses patches: cuDNN pads its single channel to eight.

Suffixes: b image, c input channel, o output channel, h w input pixel, y x output pixel, k l row and
column of the kernel, n = (b, y, x) patch, q = (k, l, c) number of a patch.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_NUMBERS = 2**23  # size of the patch buffer: 16 MiB of bfloat16


def convolve_relu(images_bchw: Tensor, layer: torch.nn.Conv2d) -> Tensor:
    """ReLU of `convolve`, in place because it is the largest tensor of a network."""
    device, stride = images_bchw.device.type, layer.stride[0]
    first = images_bchw.shape[1] == 1 and stride == 1 and not images_bchw.requires_grad
    if device == "cuda" and first and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        tensors = (tensor.to(dtype) for tensor in (images_bchw, layer.weight, layer.bias))
        return OneChannelConvolution.apply(*tensors)
    features = convolve(images_bchw, layer.weight, layer.bias, stride=stride)
    return torch.nn.functional.relu(features, inplace=True)


def convolve(images_bchw: Tensor, weight_ochw: Tensor, bias_o: Tensor, *, stride: int) -> Tensor:
    """Convolve [b, c, h, w] to [b, o, y, x] without padding, in the autocast dtype if enabled.

    Images and weight in `torch.channels_last` are not copied. No gradient needs the result, so an
    in-place ReLU may follow.
    """
    if images_bchw.device.type != "cpu":
        return torch.nn.functional.conv2d(images_bchw, weight_ochw, bias_o, stride)
    autocast = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if autocast else images_bchw.dtype
    # Patches take 0.2 to 0.8 of oneDNN's time on a Xeon with AMX (256 -> 256 channels, 20x20).
    if dtype not in (torch.bfloat16, torch.float32):
        return torch.nn.functional.conv2d(images_bchw, weight_ochw, bias_o, stride)
    tensors = (tensor.to(dtype) for tensor in (images_bchw, weight_ochw, bias_o))
    return PatchConvolution.apply(*tensors, stride)


class PatchConvolution(torch.autograd.Function):
    """`convolve` by patches. All tensors have the same dtype."""

    @staticmethod
    def forward(
        ctx, images_bchw: Tensor, weight_ochw: Tensor, bias_o: Tensor, stride: int
    ) -> Tensor:
        """Convolve in chunks of images."""
        ctx.save_for_backward(images_bchw, weight_ochw)
        ctx.stride = stride
        patches_byxklc = _patches(_channels_last(images_bchw), weight_ochw.shape, stride)
        weight_qo = _channels_last(weight_ochw).flatten(1).t()
        num_images, num_rows, num_columns = patches_byxklc.shape[:3]
        # Not a permuted view of [b, y, x, o]: autograd allows no in-place ReLU of a view.
        shape = num_images, len(weight_ochw), num_rows, num_columns
        like = {"dtype": images_bchw.dtype, "device": images_bchw.device}
        value_boyx = torch.empty(shape, **like, memory_format=torch.channels_last)
        value_no = value_boyx.permute(0, 2, 3, 1).view(-1, len(weight_ochw))
        chunk, buffer = _chunk(images_bchw, num_images, patches_byxklc[0].numel())
        values_no = value_no.split(chunk * num_rows * num_columns)
        for chunk_byxklc, chunk_no in zip(patches_byxklc.split(chunk), values_no, strict=True):
            patches_nq = _copy(chunk_byxklc, buffer).view(len(chunk_no), -1)
            torch.addmm(bias_o, patches_nq, weight_qo, out=chunk_no)
        return value_boyx

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
        if needs_bias:  # a matrix product is six times as fast as sum
            gradient_no = gradient_byxo.flatten(0, 2)
            bias = (gradient_no.new_ones(1, len(gradient_no)) @ gradient_no)[0]
        return images, weight, bias, None


class OneChannelConvolution(torch.autograd.Function):
    """ReLU of the convolution of [b, 1, h, w] with stride 1. All tensors have the same dtype.

    One fused matrix product with bias and ReLU. Patches are padded to a multiple of 8 for tensor
    cores and saved for the backward pass. Images get no gradient.
    """

    @staticmethod
    def forward(ctx, images_bchw: Tensor, weight_ochw: Tensor, bias_o: Tensor) -> Tensor:
        num_outputs, _, num_rows, num_columns = weight_ochw.shape
        size = num_rows * num_columns
        padding = (0, -size % 8)
        patches_byxq = _patches(_channels_last(images_bchw), weight_ochw.shape, 1).flatten(3)
        patches_nq = torch.nn.functional.pad(patches_byxq, padding).flatten(0, 2)
        weight_oq = torch.nn.functional.pad(weight_ochw.reshape(num_outputs, size), padding)
        value_no = torch._addmm_activation(
            bias_o, patches_nq, weight_oq.t()
        )  # and ReLU, its default
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


def _weight_gradient(
    gradient_byxo: Tensor, images_bchw: Tensor, shape_ochw: torch.Size, stride: int
) -> Tensor:
    """Gradient of the weight in chunks of kernel rows."""
    patches_byxklc = _patches(_channels_last(images_bchw), shape_ochw, stride)
    gradient_on = gradient_byxo.flatten(0, 2).t()
    num_outputs, num_channels, num_rows, num_columns = shape_ochw
    weight_oklc = gradient_byxo.new_empty(num_outputs, num_rows, num_columns, num_channels)
    chunk, buffer = _chunk(images_bchw, num_rows, patches_byxklc[:, :, :, 0].numel())
    chunks = zip(patches_byxklc.split(chunk, dim=3), weight_oklc.split(chunk, dim=1), strict=True)
    for rows_byxklc, rows_oklc in chunks:
        patches_nq = _copy(rows_byxklc, buffer).view(gradient_on.shape[1], -1)
        rows_oklc.copy_((gradient_on @ patches_nq).view_as(rows_oklc))
    return weight_oklc.permute(0, 3, 1, 2)


def _images_gradient(
    gradient_byxo: Tensor, weight_ochw: Tensor, shape_bchw: torch.Size, stride: int
) -> Tensor:
    """Gradient of the images in chunks of images: each output pixel adds its patch.

    Sums in the dtype of the images. In bfloat16 the error is 0.5 %; sums in float32 would bring it
    to 0.2 % and take 30 % longer.
    """
    num_images, num_channels, height, width = shape_bchw
    weight_oq = _channels_last(weight_ochw).flatten(1)
    images_bhwc = gradient_byxo.new_zeros(num_images, height, width, num_channels)
    numbers_each = gradient_byxo.shape[2] * weight_oq.shape[1]
    chunk, buffer = _chunk(gradient_byxo, num_images, numbers_each)
    buffer = buffer.view(-1, weight_oq.shape[1])
    chunks = zip(images_bhwc.split(chunk), gradient_byxo.split(chunk), strict=True)
    for chunk_bhwc, chunk_byxo in chunks:
        windows_byxklc = _patches(chunk_bhwc, weight_ochw.shape, stride)  # a view
        for y in range(chunk_byxo.shape[1]):
            gradient_no = chunk_byxo[:, y].flatten(0, 1)
            patches_nq = torch.mm(gradient_no, weight_oq, out=buffer[: len(gradient_no)])
            patches_bxklc = patches_nq.view_as(windows_byxklc[:, y])
            for x in range(chunk_byxo.shape[2]):  # windows overlap
                windows_byxklc[:, y, x] += patches_bxklc[:, x]
    return images_bhwc.permute(0, 3, 1, 2)


def _patches(images_bhwc: Tensor, shape_ochw: torch.Size, stride: int) -> Tensor:
    """All patches [b, y, x, k, l, c] as a view of the images."""
    patches_byxckl = images_bhwc.unfold(1, shape_ochw[2], stride).unfold(2, shape_ochw[3], stride)
    return patches_byxckl.permute(0, 1, 2, 4, 5, 3)


def _channels_last(images_bchw: Tensor) -> Tensor:
    return images_bchw.permute(0, 2, 3, 1).contiguous()  # [b, h, w, c]


def _chunk(like: Tensor, total: int, numbers_each: int) -> tuple[int, Tensor]:
    """Size of nearly equal chunks of `total` items, at least 1, and the buffer that one fits."""
    num_chunks = -(-total * numbers_each // CHUNK_NUMBERS)
    size = -(-total // num_chunks)
    return size, like.new_empty(size * numbers_each)


def _copy(view: Tensor, buffer: Tensor) -> Tensor:
    return buffer[: view.numel()].view(view.shape).copy_(view)
