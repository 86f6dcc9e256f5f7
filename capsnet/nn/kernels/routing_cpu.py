"""Routing passes of `capsnet.nn.routing.route` on a CPU that do not store the votes.

Paper: Sabour, Frosst & Hinton 2017, Procedure 1. The innermost dimension of every array is a block
of 32 images, or 16 for small batches ("lanes", suffix l): one instruction serves many images, and
the softmax over the upper capsules needs no sum across lanes. `pack` pads poses with zeros to a
multiple of 8. Some loops are unrolled four or eight times to keep sums in registers.

The work is split into shares that do not depend on the number of threads, each summed in a fixed
order, so the capsules and the gradients of lower capsules and weights are the same bits for any
number of threads. Threads live for one call and release the interpreter lock.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from numba import njit
from torch import Tensor
from torch.nn.functional import pad

from capsnet.nn.kernels import lanes
from capsnet.nn.kernels.lanes import (
    LANES,
    add,
    add_product,
    arrays,
    divide,
    exp,
    fill,
    lane_arrays,
    larger,
    load,
    multiply,
    number,
    store,
    store_totals,
    subtract,
)
from capsnet.nn.kernels.passes import backward_passes, forward_passes, kernel_of

TILE = 8  # poses are padded to a multiple of this
SHARES = 8  # minimum number of shares of a scan
LOWER_CHUNK = 32  # lower capsules whose weights fit into the second-level cache
GRADIENT_CHUNK = 2  # lower capsules whose vote gradients of all images are in memory at a time

# ------------------------------------------------ parts of a pass, for one block and one i


@njit(nogil=True)
def _votes(lower_pl, weight_jpd, votes_jdl):
    num_upper, lower_dim, upper_dim = weight_jpd.shape
    for j in range(num_upper):
        for d in range(0, upper_dim, 4):
            vote_0 = vote_1 = vote_2 = vote_3 = fill(lower_pl, 0)
            for p in range(lower_dim):  # Eq. 2
                pose = load(lower_pl, (p,))
                vote_0 = add_product(pose, number(weight_jpd, (j, p, d), 0), vote_0)
                vote_1 = add_product(pose, number(weight_jpd, (j, p, d), 1), vote_1)
                vote_2 = add_product(pose, number(weight_jpd, (j, p, d), 2), vote_2)
                vote_3 = add_product(pose, number(weight_jpd, (j, p, d), 3), vote_3)
            store(votes_jdl, (j, d), vote_0)
            store(votes_jdl, (j, d + 1), vote_1)
            store(votes_jdl, (j, d + 2), vote_2)
            store(votes_jdl, (j, d + 3), vote_3)


@njit(nogil=True)
def _agree(votes_jdl, vectors_jdl, products_jl):
    for j in range(votes_jdl.shape[0]):
        even = odd = fill(votes_jdl, 0)
        for d in range(0, votes_jdl.shape[1], 2):
            even = add_product(load(votes_jdl, (j, d)), load(vectors_jdl, (j, d)), even)
            odd = add_product(load(votes_jdl, (j, d + 1)), load(vectors_jdl, (j, d + 1)), odd)
        store(products_jl, (j,), add(even, odd))


@njit(nogil=True)
def _softmax(logit_jl, leaky):
    """Logits -> couplings, in place."""
    num_upper = logit_jl.shape[0]
    peak = fill(logit_jl, 0.0 if leaky else float("-inf"))  # leaky: a further logit of zero
    for j in range(num_upper):
        peak = larger(load(logit_jl, (j,)), peak)
    norm = exp(subtract(0, peak)) if leaky else fill(logit_jl, 0)
    for j in range(num_upper):
        share = exp(subtract(load(logit_jl, (j,)), peak))
        store(logit_jl, (j,), share)
        norm = add(norm, share)
    scale = divide(1, norm)
    for j in range(num_upper):  # Eq. 3: over upper capsules j
        store(logit_jl, (j,), multiply(load(logit_jl, (j,)), scale))


@njit(nogil=True)
def _softmax_gradient(grad_jl, coupling_jl):
    """dL/dcoupling -> dL/dlogit, in place."""
    num_upper = coupling_jl.shape[0]
    mean = fill(grad_jl, 0)
    for j in range(num_upper):
        mean = add_product(load(coupling_jl, (j,)), load(grad_jl, (j,)), mean)
    for j in range(num_upper):
        grad = subtract(load(grad_jl, (j,)), mean)
        store(grad_jl, (j,), multiply(load(coupling_jl, (j,)), grad))


@njit(nogil=True)
def _add_scaled(factor_jl, vectors_jdl, sums_jdl):
    for j in range(vectors_jdl.shape[0]):
        factor = load(factor_jl, (j,))
        for d in range(vectors_jdl.shape[1]):
            total = add_product(factor, load(vectors_jdl, (j, d)), load(sums_jdl, (j, d)))
            store(sums_jdl, (j, d), total)


@njit(nogil=True)
def _combine(factor, vectors_jdl, factors_mjl, vectors_mjdl, sums_jdl):
    """factor . vectors + sum over m of factors_m . vectors_m"""
    num_upper, upper_dim = vectors_jdl.shape[:2]
    for j in range(num_upper):
        for d in range(0, upper_dim, 4):
            sum_0 = multiply(load(vectors_jdl, (j, d)), factor)
            sum_1 = multiply(load(vectors_jdl, (j, d + 1)), factor)
            sum_2 = multiply(load(vectors_jdl, (j, d + 2)), factor)
            sum_3 = multiply(load(vectors_jdl, (j, d + 3)), factor)
            for m in range(vectors_mjdl.shape[0]):
                other = load(factors_mjl, (m, j))
                sum_0 = add_product(other, load(vectors_mjdl, (m, j, d)), sum_0)
                sum_1 = add_product(other, load(vectors_mjdl, (m, j, d + 1)), sum_1)
                sum_2 = add_product(other, load(vectors_mjdl, (m, j, d + 2)), sum_2)
                sum_3 = add_product(other, load(vectors_mjdl, (m, j, d + 3)), sum_3)
            store(sums_jdl, (j, d), sum_0)
            store(sums_jdl, (j, d + 1), sum_1)
            store(sums_jdl, (j, d + 2), sum_2)
            store(sums_jdl, (j, d + 3), sum_3)


@njit(nogil=True)
def _lower_gradient(weight_jpd, grad_votes_jdl, grad_lower_pl):
    num_upper, lower_dim, upper_dim = weight_jpd.shape
    for p in range(0, lower_dim, TILE):
        grad_0 = grad_1 = grad_2 = grad_3 = fill(grad_votes_jdl, 0)
        grad_4 = grad_5 = grad_6 = grad_7 = fill(grad_votes_jdl, 0)
        for j in range(num_upper):
            for d in range(upper_dim):
                grad = load(grad_votes_jdl, (j, d))
                grad_0 = add_product(grad, number(weight_jpd, (j, p, d), 0), grad_0)
                grad_1 = add_product(grad, number(weight_jpd, (j, p, d), upper_dim), grad_1)
                grad_2 = add_product(grad, number(weight_jpd, (j, p, d), 2 * upper_dim), grad_2)
                grad_3 = add_product(grad, number(weight_jpd, (j, p, d), 3 * upper_dim), grad_3)
                grad_4 = add_product(grad, number(weight_jpd, (j, p, d), 4 * upper_dim), grad_4)
                grad_5 = add_product(grad, number(weight_jpd, (j, p, d), 5 * upper_dim), grad_5)
                grad_6 = add_product(grad, number(weight_jpd, (j, p, d), 6 * upper_dim), grad_6)
                grad_7 = add_product(grad, number(weight_jpd, (j, p, d), 7 * upper_dim), grad_7)
        store(grad_lower_pl, (p,), grad_0)
        store(grad_lower_pl, (p + 1,), grad_1)
        store(grad_lower_pl, (p + 2,), grad_2)
        store(grad_lower_pl, (p + 3,), grad_3)
        store(grad_lower_pl, (p + 4,), grad_4)
        store(grad_lower_pl, (p + 5,), grad_5)
        store(grad_lower_pl, (p + 6,), grad_6)
        store(grad_lower_pl, (p + 7,), grad_7)


@njit(nogil=True)
def _weight_gradient(lower_nipl, i, grad_votes_njdl, grad_weight_jpd):
    num_upper, lower_dim, upper_dim = grad_weight_jpd.shape
    for j in range(num_upper):
        for p in range(0, lower_dim, 2):
            for d in range(0, upper_dim, 4):
                a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = fill(lower_nipl, 0)  # p = a, p + 1 = b
                for n in range(lower_nipl.shape[0]):
                    pose_a = load(lower_nipl, (n, i, p))
                    pose_b = load(lower_nipl, (n, i, p + 1))
                    grad_0 = load(grad_votes_njdl, (n, j, d))
                    a0, b0 = add_product(pose_a, grad_0, a0), add_product(pose_b, grad_0, b0)
                    grad_1 = load(grad_votes_njdl, (n, j, d + 1))
                    a1, b1 = add_product(pose_a, grad_1, a1), add_product(pose_b, grad_1, b1)
                    grad_2 = load(grad_votes_njdl, (n, j, d + 2))
                    a2, b2 = add_product(pose_a, grad_2, a2), add_product(pose_b, grad_2, b2)
                    grad_3 = load(grad_votes_njdl, (n, j, d + 3))
                    a3, b3 = add_product(pose_a, grad_3, a3), add_product(pose_b, grad_3, b3)
                store_totals(
                    grad_weight_jpd, (j, p, d), (j, p + 1, d), a0, a1, a2, a3, b0, b1, b2, b3
                )


# ------------------------------------------------ scans; n is the block of images


@njit(nogil=True, cache=True)
def _scan(first, last, lower_nipl, weight, leaky, vectors, votes, products, sums):
    """s = sum_i c_ij votes_ij or, given dL/ds, dL/dq: shares first..last.

    A share is one block of images and one part of the lower capsules: `sums` [part, n, j, d, l].
    `vectors` [n, m, j, d, l]: none for the uniform pass 1, else the query and, for dL/dq, dL/ds.
    """
    num_lower, num_upper = weight.shape[:2]
    even = 1 / (num_upper + leaky)
    num_parts, num_blocks = sums.shape[:2]
    num_vectors = vectors.shape[1]
    for part in range(first // num_blocks, -(-last // num_blocks)):
        first_block = max(first - part * num_blocks, 0)
        last_block = min(last - part * num_blocks, num_blocks)
        stop = num_lower * (part + 1) // num_parts
        for start in range(num_lower * part // num_parts, stop, LOWER_CHUNK):
            for n in range(first_block, last_block):
                for i in range(start, min(start + LOWER_CHUNK, stop)):
                    _votes(lower_nipl[n, i], weight[i], votes)
                    for m in range(num_vectors):
                        _agree(votes, vectors[n, m], products[m])
                    if num_vectors == 0:
                        for j in range(num_upper):
                            store(products, (0, j), fill(votes, even))
                    else:
                        _softmax(products[0], leaky)
                    if num_vectors == 2:
                        _softmax_gradient(products[1], products[0])
                    _add_scaled(products[max(num_vectors - 1, 0)], votes, sums[part, n])


@njit(nogil=True, cache=True)
def _gradients(
    first, last, lower_nipl, weight, leaky, first_grad_sum, vectors, scaled,
    through_couplings, votes, products, grad_votes, grad_lower_nipl, grad_weight,
):  # fmt: skip
    """dL/dlower and dL/dweight of lower capsules first..last, from dL/dvotes summed over passes.

    Pass 1 has uniform couplings. `vectors` [n, m, j, d, l] of the other passes: the queries and, if
    the gradient goes through the couplings, each dL/ds. `scaled` is multiplied by couplings and
    dL/dlogits: each dL/ds and then the queries.
    """
    even = 1 / (weight.shape[1] + leaky)
    num_passes = vectors.shape[1] // (2 if through_couplings else 1)
    for start in range(first, last, GRADIENT_CHUNK):
        stop = min(start + GRADIENT_CHUNK, last)
        for n in range(lower_nipl.shape[0]):
            for i in range(start, stop):
                if num_passes > 0:
                    _votes(lower_nipl[n, i], weight[i], votes)
                for m in range(vectors.shape[1]):
                    _agree(votes, vectors[n, m], products[m])
                for k in range(num_passes):
                    _softmax(products[k], leaky)
                    if through_couplings:
                        _softmax_gradient(products[num_passes + k], products[k])
                grad_votes_jdl = grad_votes[i - start, n]
                _combine(even, first_grad_sum[n], products, scaled[n], grad_votes_jdl)
                _lower_gradient(weight[i], grad_votes_jdl, grad_lower_nipl[n, i])
        for i in range(start, stop):
            _weight_gradient(lower_nipl, i, grad_votes[i - start], grad_weight[i])


# numba's disk cache checks the date of this file, but not that of lanes.py.
for _index in Path(_scan.stats.cache_path).glob("routing_cpu.*.nbi"):
    if _index.stat().st_mtime < Path(lanes.__file__).stat().st_mtime:
        _index.unlink(missing_ok=True)

# ------------------------------------------------ tensors in, tensors out


def pack(capsules_bmn: Tensor) -> Tensor:
    """[b, m, n] -> [blocks, m, n, lanes], padded with zeros."""
    num_images, _, pose_dim = capsules_bmn.shape
    lanes = LANES[num_images <= LANES[1]]
    padded = pad(capsules_bmn, (0, -pose_dim % TILE, 0, 0, 0, -num_images % lanes))
    return padded.unflatten(0, (-1, lanes)).movedim(1, -1).contiguous()


def unpack(capsules: Tensor, num_images: int, pose_dim: int) -> Tensor:
    """The reverse of `pack`."""
    return capsules.movedim(-1, 1).flatten(0, 1)[:num_images, :, :pose_dim].contiguous()


def pack_weight(weight_ijpd: Tensor) -> Tensor:
    """Pad both poses to a multiple of TILE."""
    padding = -weight_ijpd.shape[2] % TILE, -weight_ijpd.shape[3] % TILE
    if any(padding):
        weight_ijpd = pad(weight_ijpd, (0, padding[1], 0, padding[0]))
    return weight_ijpd.contiguous()


def scan(lower, weight, leaky, query=None, grad_sum=None) -> Tensor:
    """s of one pass [blocks, j, d, lanes] without bias or, given dL/ds, dL/dquery.

    Without a query: the uniform pass 1.
    """
    num_lower, num_upper, _, upper_dim = weight.shape
    num_blocks, num_lanes = lower.shape[0], lower.shape[-1]
    vectors = [vector for vector in (query, grad_sum) if vector is not None]
    none = lower.new_empty(num_blocks, 0, 1, 1, num_lanes)
    vectors = torch.stack(vectors, dim=1) if vectors else none
    num_parts = min(num_lower, -(-SHARES // num_blocks))
    sums = lower.new_zeros(num_parts, num_blocks, num_upper, upper_dim, num_lanes)

    def share(first, last):
        votes = torch.empty_like(sums[0, 0])
        products = votes.new_empty(2, num_upper, num_lanes)
        inputs = *lane_arrays(lower), *arrays(weight)
        _scan(first, last, *inputs, leaky, *lane_arrays(vectors, votes, products, sums))

    _in_threads(share, num_parts * num_blocks)
    for part in sums[1:]:
        sums[0] += part
    return sums[0]


def gradients(lower, weight, leaky, queries, grad_sums, through_couplings):
    """dL/dlower (packed) and dL/dweight from queries and dL/ds [k, blocks, j, d, lanes]."""
    grad_lower, grad_weight = torch.empty_like(lower), torch.empty_like(weight)
    vectors, scaled = queries[1:], grad_sums[1:]
    if through_couplings:
        vectors, scaled = torch.cat((vectors, scaled)), torch.cat((scaled, vectors))
    vectors, scaled = (each.transpose(0, 1).contiguous() for each in (vectors, scaled))

    def share(first, last):
        votes = torch.empty_like(queries[0, 0])
        products = votes.new_empty(vectors.shape[1], len(votes), votes.shape[-1])
        grad_votes = votes.new_empty(GRADIENT_CHUNK, len(lower), *votes.shape)
        inputs = *lane_arrays(lower), *arrays(weight)
        middle = lane_arrays(grad_sums[0], vectors, scaled)
        outputs = *lane_arrays(votes, products, grad_votes, grad_lower), *arrays(grad_weight)
        _gradients(first, last, *inputs, leaky, *middle, through_couplings, *outputs)

    _in_threads(share, len(weight))
    return grad_lower, grad_weight


def _in_threads(share, count):
    num_threads = min(torch.get_num_threads(), count)
    edges = [count * thread // num_threads for thread in range(num_threads + 1)]
    if num_threads == 1:
        return share(0, count)
    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(share, edges[:-1], edges[1:]))


class RouteOnCPU(torch.autograd.Function):
    """`route` on a CPU. Packed tensors are [block, j, d, lane], so a pose is dimension 2."""

    @staticmethod
    @kernel_of("cpu")
    def forward(ctx, lower_bip, weight_ijpd, bias_jd, num_iterations, leaky, gradient):
        ctx.leaky, ctx.gradient = leaky, gradient
        ctx.sizes = len(lower_bip), weight_ijpd.shape
        inputs = pack(lower_bip), pack_weight(weight_ijpd)
        bias, later = pack(bias_jd.unsqueeze(0))[..., :1], partial(scan, *inputs, leaky)
        capsules, *passes = forward_passes(later, later(), bias, num_iterations)
        ctx.save_for_backward(*inputs, *passes)
        return unpack(capsules, len(lower_bip), weight_ijpd.shape[3])

    @staticmethod
    @torch.autograd.function.once_differentiable
    @kernel_of("cpu")
    def backward(ctx, grad_capsules_bjd):
        *inputs, queries, sums = ctx.saved_tensors
        num_images, (_, _, lower_dim, upper_dim) = ctx.sizes
        scanned = partial(scan, *inputs, ctx.leaky), queries, sums
        passes = backward_passes(*scanned, pack(grad_capsules_bjd), ctx.gradient)
        grad_lower, grad_weight = gradients(*inputs, ctx.leaky, *passes, ctx.gradient == "all")
        needs_bias = ctx.needs_input_grad[2]
        grad_bias = passes[1].sum(dim=(0, 1, 4))[:, :upper_dim] if needs_bias else None
        grad_lower = unpack(grad_lower, num_images, lower_dim)
        grad_weight = grad_weight[:, :, :lower_dim, :upper_dim]
        return grad_lower, grad_weight, grad_bias, None, None, None
