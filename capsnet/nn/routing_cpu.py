"""The loops of `capsnet.nn.routing.route` for the CPU: votes are computed, used and forgotten.

Paper: Sabour, Frosst & Hinton 2017, Procedure 1. What differs is only the order of the work: images
stand in blocks of 32, or of 16 if there are no more, in the innermost dimension of every array
("lanes", suffix l), so one machine instruction serves many images, a weight is one number for all
of them, and the softmax over the upper capsules needs no sum across lanes. numba has no vector type
of its own; the first half of this file gives it one, `Lanes`, with the few operations that routing
needs. The second half are plain loops over it. They serve any number of capsules and any pose size
that is a multiple of 8 (`pack` pads with zeros, which change nothing).

A share of the work belongs to one thread alone and is summed in a fixed order, and what the shares
are does not depend on the threads: these sums are the same bits for any number of threads. Threads
are plain Python threads that live for one call (the loops hold no interpreter lock), so none is
left to break a fork or to spin against torch's.
"""

from concurrent.futures import ThreadPoolExecutor

import torch
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model
from torch import Tensor
from torch.nn.functional import pad

LANES = 32, 16  # images side by side, the second for small batches: AVX-512 registers of float32
COMPLEX = {"float32": "complex64", "float64": "complex128"}
TILE = 8  # poses are padded to a multiple of this
SHARES = 8  # of a scan, at least: parts of the lower capsules where the blocks of images are few
LOWER_CHUNK = 32  # lower capsules whose weights stay in the second-level cache as blocks pass by
GRADIENT_CHUNK = 2  # lower capsules whose vote gradients of all images are held at a time

# ------------------------------------------------ a vector type for numba


class Lanes(types.Type):
    """One number for each image of a block, in registers; in an array its last dimension."""

    def __init__(self, dtype, width):
        super().__init__(name=f"Lanes({dtype}, {width})")
        self.dtype, self.width = dtype, width


def _lanes_of(array):
    """The lanes of an array, from its type alone: complex numbers stand for the narrow ones.

    A type of numba's has no place for a width. Record types would have one, but their compiled
    names hold a number that is counted anew in each process, so code of different widths that two
    processes left in numba's cache on the disk would be taken for one another.
    """
    if isinstance(array.dtype, types.Complex):
        return Lanes(array.dtype.underlying_float, LANES[1])
    return Lanes(array.dtype, LANES[0])


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        element = ir.FloatType() if kind.dtype == types.float32 else ir.DoubleType()
        super().__init__(manager, kind, ir.VectorType(element, kind.width))


def _spread(context, builder, value, kind, lanes):
    """A scalar copied to every lane; lanes as they are."""
    if isinstance(kind, Lanes):
        return value
    value = context.cast(builder, value, kind, lanes.dtype)
    empty = ir.Constant(context.get_value_type(lanes), ir.Undefined)
    first = builder.insert_element(empty, value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, empty, _integers([0] * lanes.width))


def _integers(values):
    return ir.Constant(ir.VectorType(ir.IntType(32), len(values)), values)


def _call(builder, name, *operands):
    kind = operands[0].type
    bits = 32 if kind.element == ir.FloatType() else 64
    signature = ir.FunctionType(kind, [kind] * len(operands))
    name = f"llvm.{name}.v{kind.count}f{bits}"
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), operands)


def _operation(kinds, emit):
    """Typing and code of an operation on lanes; operands that are scalars are spread first."""
    lanes = next(kind for kind in kinds if isinstance(kind, Lanes))

    def codegen(context, builder, signature, values):
        pairs = zip(values, kinds, strict=True)
        return emit(builder, *(_spread(context, builder, v, k, lanes) for v, k in pairs))

    return lanes(*kinds), codegen


@intrinsic
def _add(typing, a, b):
    return _operation((a, b), lambda builder, a, b: builder.fadd(a, b))


@intrinsic
def _subtract(typing, a, b):
    return _operation((a, b), lambda builder, a, b: builder.fsub(a, b))


@intrinsic
def _multiply(typing, a, b):
    return _operation((a, b), lambda builder, a, b: builder.fmul(a, b))


@intrinsic
def _divide(typing, a, b):
    return _operation((a, b), lambda builder, a, b: builder.fdiv(a, b))


@intrinsic
def _add_product(typing, a, b, c):  # a * b + c
    return _operation((a, b, c), lambda builder, *abc: _call(builder, "fmuladd", *abc))


@intrinsic
def _larger(typing, a, b):
    return _operation(
        (a, b), lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b)
    )


@intrinsic
def _exp(typing, a):
    return _operation((a,), _emit_exp)


def _emit_exp(builder, x):
    """exp(x) for x <= 0; NaN stays NaN. Double: the library's. float32: 2^n exp(rest).

    n is x / ln 2 rounded, so the rest lies within ln 2 / 2 of zero and a short series is enough.
    """
    kind = x.type
    if kind.element == ir.DoubleType():
        return _call(builder, "exp", x)

    def same(value):
        return ir.Constant(kind, [value] * kind.count)

    rounder = same(
        1.5 * 2**23
    )  # float32 this large are whole numbers: adding rounds, the low bits hold n
    shifted = _call(builder, "fmuladd", x, same(1.4426950408889634), rounder)  # 1 / ln 2
    power = builder.fsub(shifted, rounder)
    rest = _call(
        builder, "fmuladd", power, same(-0.693359375), x
    )  # ln 2 in two parts, the first one exact
    rest = _call(builder, "fmuladd", power, same(0.693359375 - 0.6931471805599453), rest)
    series = same(1 / 5040)  # Taylor to the 7th power: the next term is below 6e-9
    for factorial in (720, 120, 24, 6, 2, 1, 1):
        series = _call(builder, "fmuladd", series, rest, same(1 / factorial))
    bits = builder.bitcast(shifted, _integers([0] * kind.count).type)
    bits = builder.shl(bits, _integers([23] * kind.count))
    two_to_n = builder.bitcast(builder.add(bits, _integers([127 << 23] * kind.count)), kind)
    vanishes = builder.fcmp_ordered("<", x, same(-87.0))  # smaller than any normal float32
    return builder.select(vanishes, same(0.0), builder.fmul(series, two_to_n))


@intrinsic
def _fill(typing, like, scalar):
    lanes = like if isinstance(like, Lanes) else _lanes_of(like)

    def codegen(context, builder, signature, values):
        return _spread(context, builder, values[1], scalar, lanes)

    return lanes(like, scalar), codegen


@intrinsic
def _store_totals(typing, array, index_a, index_b, a0, a1, a2, a3, b0, b1, b2, b3):
    """Sums over the lanes: of the a to four neighbours from array[index_a], of the b from index_b.

    By halves, always in the same order; from the second halving on, the halves of two vectors share
    a register, so that eight sums cost little more than one.
    """

    def codegen(context, builder, signature, values):
        kind = array.dtype
        vectors = [_add_halves(builder, [vector], a0.width) for vector in values[3:]]
        width = a0.width // 2  # lanes of a vector; the totals in it lie side by side
        for lanes_each in (width, width // 2, width // 4):
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [_add_halves(builder, pair, lanes_each) for pair in pairs]
        (vector,) = vectors
        for lanes_each in _halvings(width // 8):
            vector = _add_halves(builder, [vector], lanes_each)
        for position, index in ((0, index_a), (1, index_b)):
            address = _address(context, builder, array, values[0], index, values[1 + position])
            four = _integers([4 * position + n for n in range(4)])
            four = builder.shuffle_vector(vector, vector, four)
            address = builder.bitcast(address, four.type.as_pointer())
            builder.store(four, address, align=kind.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, index_a, index_b, a0, a1, a2, a3, b0, b1, b2, b3), codegen


def _halvings(lanes_each):
    while lanes_each > 1:
        yield lanes_each
        lanes_each //= 2


def _add_halves(builder, vectors, lanes_each):
    """Fold each run of `lanes_each` lanes of one or two vectors in half: the halves added."""
    width = vectors[0].type.count * len(vectors)
    starts = range(0, width, lanes_each)
    first = [start + lane for start in starts for lane in range(lanes_each // 2)]
    second = [lane + lanes_each // 2 for lane in first]
    halves = (
        builder.shuffle_vector(vectors[0], vectors[-1], _integers(h)) for h in (first, second)
    )
    return builder.fadd(*halves)


def _address(context, builder, array, value, index, indices):
    """Address of array[index]; missing last indices are zero, nothing is checked."""
    indices = cgutils.unpack_tuple(builder, indices, len(index))
    indices = [context.cast(builder, v, k, types.intp) for v, k in zip(indices, index, strict=True)]
    indices += [context.get_constant(types.intp, 0)] * (array.ndim - len(indices))
    struct = context.make_array(array)(context, builder, value)
    return cgutils.get_item_pointer(context, builder, array, struct, indices)


@intrinsic
def _load(typing, array, index):
    lanes = _lanes_of(array)

    def codegen(context, builder, signature, values):
        address = _address(context, builder, array, values[0], index, values[1])
        address = builder.bitcast(address, context.get_value_type(lanes).as_pointer())
        return builder.load(address, align=lanes.dtype.bitwidth // 8)

    return lanes(array, index), codegen


@intrinsic
def _store(typing, array, index, lanes):
    def codegen(context, builder, signature, values):
        address = _address(context, builder, array, values[0], index, values[1])
        address = builder.bitcast(address, context.get_value_type(lanes).as_pointer())
        builder.store(values[2], address, align=lanes.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, index, lanes), codegen


@intrinsic
def _number(typing, array, index, step):
    """The number `step` places after array[index]: neighbours share one address computation."""

    def codegen(context, builder, signature, values):
        address = _address(context, builder, array, values[0], index, values[1])
        return builder.load(
            builder.gep(address, [context.cast(builder, values[2], step, types.intp)])
        )

    return array.dtype(array, index, step), codegen


# ------------------------------------------------ pieces of a pass, for one block and one i


@njit(nogil=True)
def _votes(lower_pl, weight_jpd, votes_jdl):
    num_upper, lower_dim, upper_dim = weight_jpd.shape
    for j in range(num_upper):
        for d in range(0, upper_dim, 4):
            vote_0 = vote_1 = vote_2 = vote_3 = _fill(lower_pl, 0)
            for p in range(lower_dim):  # Eq. 2
                pose = _load(lower_pl, (p,))
                vote_0 = _add_product(pose, _number(weight_jpd, (j, p, d), 0), vote_0)
                vote_1 = _add_product(pose, _number(weight_jpd, (j, p, d), 1), vote_1)
                vote_2 = _add_product(pose, _number(weight_jpd, (j, p, d), 2), vote_2)
                vote_3 = _add_product(pose, _number(weight_jpd, (j, p, d), 3), vote_3)
            _store(votes_jdl, (j, d), vote_0)
            _store(votes_jdl, (j, d + 1), vote_1)
            _store(votes_jdl, (j, d + 2), vote_2)
            _store(votes_jdl, (j, d + 3), vote_3)


@njit(nogil=True)
def _agree(votes_jdl, vectors_jdl, products_jl):
    for j in range(votes_jdl.shape[0]):
        even = odd = _fill(votes_jdl, 0)
        for d in range(0, votes_jdl.shape[1], 2):
            even = _add_product(_load(votes_jdl, (j, d)), _load(vectors_jdl, (j, d)), even)
            odd = _add_product(_load(votes_jdl, (j, d + 1)), _load(vectors_jdl, (j, d + 1)), odd)
        _store(products_jl, (j,), _add(even, odd))


@njit(nogil=True)
def _softmax(logit_jl, leaky):
    """Logits -> couplings, in place."""
    num_upper = logit_jl.shape[0]
    peak = _fill(logit_jl, 0.0 if leaky else float("-inf"))  # leaky: one more logit, always zero
    for j in range(num_upper):
        peak = _larger(_load(logit_jl, (j,)), peak)
    norm = _exp(_subtract(0, peak)) if leaky else _fill(logit_jl, 0)
    for j in range(num_upper):
        share = _exp(_subtract(_load(logit_jl, (j,)), peak))
        _store(logit_jl, (j,), share)
        norm = _add(norm, share)
    scale = _divide(1, norm)
    for j in range(num_upper):  # Eq. 3: over upper capsules j
        _store(logit_jl, (j,), _multiply(_load(logit_jl, (j,)), scale))


@njit(nogil=True)
def _softmax_gradient(grad_jl, coupling_jl):
    """dL/dcoupling -> dL/dlogit, in place."""
    num_upper = coupling_jl.shape[0]
    mean = _fill(grad_jl, 0)
    for j in range(num_upper):
        mean = _add_product(_load(coupling_jl, (j,)), _load(grad_jl, (j,)), mean)
    for j in range(num_upper):
        grad = _subtract(_load(grad_jl, (j,)), mean)
        _store(grad_jl, (j,), _multiply(_load(coupling_jl, (j,)), grad))


@njit(nogil=True)
def _add_scaled(factor_jl, vectors_jdl, sums_jdl):
    for j in range(vectors_jdl.shape[0]):
        factor = _load(factor_jl, (j,))
        for d in range(vectors_jdl.shape[1]):
            total = _add_product(factor, _load(vectors_jdl, (j, d)), _load(sums_jdl, (j, d)))
            _store(sums_jdl, (j, d), total)


@njit(nogil=True)
def _combine(factor, vectors_jdl, factors_mjl, vectors_mjdl, sums_jdl):
    """factor . vectors + sum over m of factors_m . vectors_m"""
    num_upper, upper_dim = vectors_jdl.shape[:2]
    for j in range(num_upper):
        for d in range(0, upper_dim, 4):
            sum_0 = _multiply(_load(vectors_jdl, (j, d)), factor)
            sum_1 = _multiply(_load(vectors_jdl, (j, d + 1)), factor)
            sum_2 = _multiply(_load(vectors_jdl, (j, d + 2)), factor)
            sum_3 = _multiply(_load(vectors_jdl, (j, d + 3)), factor)
            for m in range(vectors_mjdl.shape[0]):
                other = _load(factors_mjl, (m, j))
                sum_0 = _add_product(other, _load(vectors_mjdl, (m, j, d)), sum_0)
                sum_1 = _add_product(other, _load(vectors_mjdl, (m, j, d + 1)), sum_1)
                sum_2 = _add_product(other, _load(vectors_mjdl, (m, j, d + 2)), sum_2)
                sum_3 = _add_product(other, _load(vectors_mjdl, (m, j, d + 3)), sum_3)
            _store(sums_jdl, (j, d), sum_0)
            _store(sums_jdl, (j, d + 1), sum_1)
            _store(sums_jdl, (j, d + 2), sum_2)
            _store(sums_jdl, (j, d + 3), sum_3)


@njit(nogil=True)
def _lower_gradient(weight_jpd, grad_votes_jdl, grad_lower_pl):
    num_upper, lower_dim, upper_dim = weight_jpd.shape
    for p in range(0, lower_dim, TILE):
        grad_0 = grad_1 = grad_2 = grad_3 = _fill(grad_votes_jdl, 0)
        grad_4 = grad_5 = grad_6 = grad_7 = _fill(grad_votes_jdl, 0)
        for j in range(num_upper):
            for d in range(upper_dim):
                grad = _load(grad_votes_jdl, (j, d))
                grad_0 = _add_product(grad, _number(weight_jpd, (j, p, d), 0), grad_0)
                grad_1 = _add_product(grad, _number(weight_jpd, (j, p, d), upper_dim), grad_1)
                grad_2 = _add_product(grad, _number(weight_jpd, (j, p, d), 2 * upper_dim), grad_2)
                grad_3 = _add_product(grad, _number(weight_jpd, (j, p, d), 3 * upper_dim), grad_3)
                grad_4 = _add_product(grad, _number(weight_jpd, (j, p, d), 4 * upper_dim), grad_4)
                grad_5 = _add_product(grad, _number(weight_jpd, (j, p, d), 5 * upper_dim), grad_5)
                grad_6 = _add_product(grad, _number(weight_jpd, (j, p, d), 6 * upper_dim), grad_6)
                grad_7 = _add_product(grad, _number(weight_jpd, (j, p, d), 7 * upper_dim), grad_7)
        _store(grad_lower_pl, (p,), grad_0)
        _store(grad_lower_pl, (p + 1,), grad_1)
        _store(grad_lower_pl, (p + 2,), grad_2)
        _store(grad_lower_pl, (p + 3,), grad_3)
        _store(grad_lower_pl, (p + 4,), grad_4)
        _store(grad_lower_pl, (p + 5,), grad_5)
        _store(grad_lower_pl, (p + 6,), grad_6)
        _store(grad_lower_pl, (p + 7,), grad_7)


@njit(nogil=True)
def _weight_gradient(lower_nipl, i, grad_votes_njdl, grad_weight_jpd):
    num_upper, lower_dim, upper_dim = grad_weight_jpd.shape
    for j in range(num_upper):
        for p in range(0, lower_dim, 2):
            for d in range(0, upper_dim, 4):
                a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = _fill(lower_nipl, 0)  # p = a, p + 1 = b
                for n in range(lower_nipl.shape[0]):
                    pose_a = _load(lower_nipl, (n, i, p))
                    pose_b = _load(lower_nipl, (n, i, p + 1))
                    grad_0 = _load(grad_votes_njdl, (n, j, d))
                    a0, b0 = _add_product(pose_a, grad_0, a0), _add_product(pose_b, grad_0, b0)
                    grad_1 = _load(grad_votes_njdl, (n, j, d + 1))
                    a1, b1 = _add_product(pose_a, grad_1, a1), _add_product(pose_b, grad_1, b1)
                    grad_2 = _load(grad_votes_njdl, (n, j, d + 2))
                    a2, b2 = _add_product(pose_a, grad_2, a2), _add_product(pose_b, grad_2, b2)
                    grad_3 = _load(grad_votes_njdl, (n, j, d + 3))
                    a3, b3 = _add_product(pose_a, grad_3, a3), _add_product(pose_b, grad_3, b3)
                _store_totals(
                    grad_weight_jpd, (j, p, d), (j, p + 1, d), a0, a1, a2, a3, b0, b1, b2, b3
                )


# ------------------------------------------------ whole scans; n is the block of images


@njit(nogil=True, cache=True)
def _scan(first, last, lower_nipl, weight, leaky, vectors, votes, products, sums):
    """s = sum_i c_ij votes_ij or, given dL/ds too, dL/dq: shares first..last of the work.

    A share is one block of images and one part of the lower capsules: `sums` [part, n, j, d, l].
    `vectors` [n, m, j, d, l] are the query and, for dL/dq, dL/ds. Without any it is pass 1, whose
    couplings are even.
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
                            _store(products, (0, j), _fill(votes, even))
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
    """Lower capsules first..last: votes once, their gradient summed over passes, both products.

    Pass 1 has even couplings. Of the others, `vectors` [n, m, j, d, l]
    are the queries and then, if the gradient goes through the couplings, each dL/ds; `scaled` are
    what coupling and dL/dlogit multiply: each dL/ds and then the queries.
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


# ------------------------------------------------ tensors in, tensors out


def pack(capsules_bmn: Tensor) -> Tensor:
    """[b, m, n] -> [blocks, m, n, lanes], pose and images padded with zeros."""
    num_images, _, pose_dim = capsules_bmn.shape
    lanes = LANES[num_images <= LANES[1]]
    padded = pad(capsules_bmn, (0, -pose_dim % TILE, 0, 0, 0, -num_images % lanes))
    return padded.unflatten(0, (-1, lanes)).movedim(1, -1).contiguous()


def unpack(capsules: Tensor, num_images: int, pose_dim: int) -> Tensor:
    """The reverse of `pack`."""
    return capsules.movedim(-1, 1).flatten(0, 1)[:num_images, :, :pose_dim].contiguous()


def pack_weight(weight_ijpd: Tensor) -> Tensor:
    """Both poses padded to a multiple of TILE; not copied where they are one already."""
    padding = -weight_ijpd.shape[2] % TILE, -weight_ijpd.shape[3] % TILE
    if any(padding):
        weight_ijpd = pad(weight_ijpd, (0, padding[1], 0, padding[0]))
    return weight_ijpd.contiguous()


def scan(lower, weight, leaky, query=None, grad_sum=None) -> Tensor:
    """s of one pass [blocks, j, d, lanes] without bias or, given dL/ds, dL/dquery.

    Without a query it is pass 1, whose couplings are even.
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
        inputs = *_lane_arrays(lower), *_arrays(weight)
        _scan(first, last, *inputs, leaky, *_lane_arrays(vectors, votes, products, sums))

    _in_threads(share, num_parts * num_blocks)
    for part in sums[1:]:
        sums[0] += part
    return sums[0]


def gradients(lower, weight, leaky, queries, grad_sums, through_couplings):
    """dL/dlower (packed), dL/dweight from each pass's query and dL/ds [k, blocks, j, d, lanes]."""
    grad_lower, grad_weight = torch.empty_like(lower), torch.empty_like(weight)
    vectors, scaled = queries[1:], grad_sums[1:]
    if through_couplings:
        vectors, scaled = torch.cat((vectors, scaled)), torch.cat((scaled, vectors))
    vectors, scaled = (each.transpose(0, 1).contiguous() for each in (vectors, scaled))

    def share(first, last):
        votes = torch.empty_like(queries[0, 0])
        products = votes.new_empty(vectors.shape[1], len(votes), votes.shape[-1])
        grad_votes = votes.new_empty(GRADIENT_CHUNK, len(lower), *votes.shape)
        inputs = *_lane_arrays(lower), *_arrays(weight)
        middle = _lane_arrays(grad_sums[0], vectors, scaled)
        outputs = *_lane_arrays(votes, products, grad_votes, grad_lower), *_arrays(grad_weight)
        _gradients(first, last, *inputs, leaky, *middle, through_couplings, *outputs)

    _in_threads(share, len(weight))
    return grad_lower, grad_weight


def _arrays(*tensors):
    return [tensor.detach().numpy() for tensor in tensors]


def _lane_arrays(*tensors):
    """Arrays whose type tells the width of the lanes, see `_lanes_of`."""
    arrays = _arrays(*tensors)
    narrow = arrays[0].shape[-1] == LANES[1]
    return [array.view(COMPLEX[array.dtype.name]) if narrow else array for array in arrays]


def _in_threads(share, count):
    num_threads = min(torch.get_num_threads(), count)
    edges = [count * thread // num_threads for thread in range(num_threads + 1)]
    if num_threads == 1:
        return share(0, count)
    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(share, edges[:-1], edges[1:]))
