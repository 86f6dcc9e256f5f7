"""The loops of `capsnet.nn.routing.route` for the CPU: votes are computed, used and forgotten.

Paper: Sabour, Frosst & Hinton 2017, Procedure 1. What differs is only the order of the work: images
stand in blocks of 32 in the innermost dimension of every array ("lanes", suffix l), so one machine
instruction serves many images, a weight is one number for all of them, and the softmax over the
upper capsules needs no sum across lanes. numba has no vector type of its own; the first half of
this file gives it one, `Lanes`, with the few operations that routing needs. The second half are
plain loops over it. They serve any number of capsules and any pose size that is a multiple of 4
(`pack` pads with zeros, which change nothing).

A block, or a lower capsule, belongs to one thread alone and is summed in a fixed order: these sums
are the same bits for any number of threads. Threads are plain Python threads that live for one call
(the loops hold no interpreter lock), so none is left to break a fork or to spin against torch's.
"""

from concurrent.futures import ThreadPoolExecutor

import torch
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model
from torch import Tensor
from torch.nn.functional import pad

LANES = 32  # images side by side: two AVX-512 registers of float32
TILE = 4  # poses are padded to a multiple of this
LOWER_CHUNK = (
    32  # lower capsules whose weights stay in the second-level cache while the blocks pass by
)
GRADIENT_CHUNK = 2  # lower capsules whose vote gradients of all images are held at a time

# ------------------------------------------------ a vector type for numba


class Lanes(types.Type):
    """One number for each image of a block, in registers."""

    def __init__(self, dtype):
        super().__init__(name=f"Lanes({dtype}, {LANES})")
        self.dtype = dtype


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        element = ir.FloatType() if kind.dtype == types.float32 else ir.DoubleType()
        super().__init__(manager, kind, ir.VectorType(element, LANES))


def _spread(context, builder, value, kind, lanes):
    """A scalar copied to every lane; lanes as they are."""
    if isinstance(kind, Lanes):
        return value
    value = context.cast(builder, value, kind, lanes.dtype)
    empty = ir.Constant(context.get_value_type(lanes), ir.Undefined)
    first = builder.insert_element(empty, value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, empty, _integers([0] * LANES))


def _integers(values):
    return ir.Constant(ir.VectorType(ir.IntType(32), len(values)), values)


def _call(builder, name, *operands):
    kind = operands[0].type
    bits = 32 if kind.element == ir.FloatType() else 64
    signature = ir.FunctionType(kind, [kind] * len(operands))
    name = f"llvm.{name}.v{LANES}f{bits}"
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
        return ir.Constant(kind, [value] * LANES)

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
    bits = builder.shl(
        builder.bitcast(shifted, _integers([0] * LANES).type), _integers([23] * LANES)
    )
    two_to_n = builder.bitcast(builder.add(bits, _integers([127 << 23] * LANES)), kind)
    vanishes = builder.fcmp_ordered("<", x, same(-87.0))  # smaller than any normal float32
    return builder.select(vanishes, same(0.0), builder.fmul(series, two_to_n))


@intrinsic
def _fill(typing, like, scalar):
    lanes = like if isinstance(like, Lanes) else Lanes(like.dtype)

    def codegen(context, builder, signature, values):
        return _spread(context, builder, values[1], scalar, lanes)

    return lanes(like, scalar), codegen


@intrinsic
def _total(typing, lanes):
    """Sum over the lanes, by halves: always the same order."""

    def codegen(context, builder, signature, values):
        width, vector = LANES, values[0]
        while width > 1:
            width //= 2
            low, high = _integers(list(range(width))), _integers(list(range(width, 2 * width)))
            vector = builder.fadd(
                builder.shuffle_vector(vector, vector, low),
                builder.shuffle_vector(vector, vector, high),
            )
        return builder.extract_element(vector, ir.IntType(32)(0))

    return lanes.dtype(lanes), codegen


def _address(context, builder, array, value, index, indices):
    """Address of array[index]; missing last indices are zero, nothing is checked."""
    indices = cgutils.unpack_tuple(builder, indices, len(index))
    indices = [context.cast(builder, v, k, types.intp) for v, k in zip(indices, index, strict=True)]
    indices += [context.get_constant(types.intp, 0)] * (array.ndim - len(indices))
    struct = context.make_array(array)(context, builder, value)
    return cgutils.get_item_pointer(context, builder, array, struct, indices)


@intrinsic
def _load(typing, array, index):
    lanes = Lanes(array.dtype)

    def codegen(context, builder, signature, values):
        address = _address(context, builder, array, values[0], index, values[1])
        address = builder.bitcast(address, context.get_value_type(lanes).as_pointer())
        return builder.load(address, align=array.dtype.bitwidth // 8)

    return lanes(array, index), codegen


@intrinsic
def _store(typing, array, index, lanes):
    def codegen(context, builder, signature, values):
        address = _address(context, builder, array, values[0], index, values[1])
        address = builder.bitcast(address, context.get_value_type(lanes).as_pointer())
        builder.store(values[2], address, align=array.dtype.bitwidth // 8)
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
        for d in range(0, upper_dim, TILE):
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
def _couple(votes_jdl, query_jdl, log_prior_j, leaky, coupling_jl):
    num_upper = votes_jdl.shape[0]
    _agree(votes_jdl, query_jdl, coupling_jl)
    peak = _fill(votes_jdl, 0.0 if leaky else float("-inf"))  # leaky: one more logit, always zero
    for j in range(num_upper):
        logit = _add(_load(coupling_jl, (j,)), log_prior_j[j])
        _store(coupling_jl, (j,), logit)
        peak = _larger(logit, peak)
    norm = _exp(_subtract(0, peak)) if leaky else _fill(votes_jdl, 0)
    for j in range(num_upper):
        share = _exp(_subtract(_load(coupling_jl, (j,)), peak))
        _store(coupling_jl, (j,), share)
        norm = _add(norm, share)
    scale = _divide(1, norm)
    for j in range(num_upper):  # Eq. 3: over upper capsules j
        _store(coupling_jl, (j,), _multiply(_load(coupling_jl, (j,)), scale))


@njit(nogil=True)
def _logit_gradient(votes_jdl, grad_sum_jdl, coupling_jl, grad_logit_jl):
    num_upper = votes_jdl.shape[0]
    _agree(votes_jdl, grad_sum_jdl, grad_logit_jl)  # dL/dcoupling
    mean = _fill(votes_jdl, 0)
    for j in range(num_upper):
        mean = _add_product(_load(coupling_jl, (j,)), _load(grad_logit_jl, (j,)), mean)
    for j in range(num_upper):  # softmax backward
        grad = _subtract(_load(grad_logit_jl, (j,)), mean)
        _store(grad_logit_jl, (j,), _multiply(_load(coupling_jl, (j,)), grad))


@njit(nogil=True)
def _add_scaled(factor_jl, vectors_jdl, sums_jdl):
    for j in range(vectors_jdl.shape[0]):
        factor = _load(factor_jl, (j,))
        for d in range(vectors_jdl.shape[1]):
            total = _add_product(factor, _load(vectors_jdl, (j, d)), _load(sums_jdl, (j, d)))
            _store(sums_jdl, (j, d), total)


@njit(nogil=True)
def _add_scaled_twice(factor_jl, vectors_jdl, other_factor_jl, other_vectors_jdl, sums_jdl):
    for j in range(vectors_jdl.shape[0]):
        factor, other_factor = _load(factor_jl, (j,)), _load(other_factor_jl, (j,))
        for d in range(vectors_jdl.shape[1]):
            total = _add_product(factor, _load(vectors_jdl, (j, d)), _load(sums_jdl, (j, d)))
            total = _add_product(other_factor, _load(other_vectors_jdl, (j, d)), total)
            _store(sums_jdl, (j, d), total)


@njit(nogil=True)
def _scale(factor_j, vectors_jdl, products_jdl):
    for j in range(vectors_jdl.shape[0]):
        for d in range(vectors_jdl.shape[1]):
            _store(products_jdl, (j, d), _multiply(_load(vectors_jdl, (j, d)), factor_j[j]))


@njit(nogil=True)
def _lower_gradient(weight_jpd, grad_votes_jdl, grad_lower_pl):
    num_upper, lower_dim, upper_dim = weight_jpd.shape
    for p in range(0, lower_dim, TILE):
        grad_0 = grad_1 = grad_2 = grad_3 = _fill(grad_votes_jdl, 0)
        for j in range(num_upper):
            for d in range(upper_dim):
                grad = _load(grad_votes_jdl, (j, d))
                grad_0 = _add_product(grad, _number(weight_jpd, (j, p, d), 0), grad_0)
                grad_1 = _add_product(grad, _number(weight_jpd, (j, p, d), upper_dim), grad_1)
                grad_2 = _add_product(grad, _number(weight_jpd, (j, p, d), 2 * upper_dim), grad_2)
                grad_3 = _add_product(grad, _number(weight_jpd, (j, p, d), 3 * upper_dim), grad_3)
        _store(grad_lower_pl, (p,), grad_0)
        _store(grad_lower_pl, (p + 1,), grad_1)
        _store(grad_lower_pl, (p + 2,), grad_2)
        _store(grad_lower_pl, (p + 3,), grad_3)


@njit(nogil=True)
def _weight_gradient(lower_nipl, i, grad_votes_njdl, grad_weight_jpd):
    num_blocks = lower_nipl.shape[0]
    num_upper, lower_dim, upper_dim = grad_weight_jpd.shape
    for j in range(num_upper):
        for p in range(0, lower_dim, 2):
            for d in range(0, upper_dim, TILE):
                a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = _fill(lower_nipl, 0)  # p = a, p + 1 = b
                for n in range(num_blocks):
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
                row_a, row_b = grad_weight_jpd[j, p], grad_weight_jpd[j, p + 1]
                row_a[d], row_a[d + 1], row_a[d + 2], row_a[d + 3] = (
                    _total(a0),
                    _total(a1),
                    _total(a2),
                    _total(a3),
                )
                row_b[d], row_b[d + 1], row_b[d + 2], row_b[d + 3] = (
                    _total(b0),
                    _total(b1),
                    _total(b2),
                    _total(b3),
                )


# ------------------------------------------------ whole scans; n is the block of images


@njit(nogil=True, cache=True)
def _scan(first, last, lower_nipl, weight, prior_ij, leaky, query, grad_sum, votes, small, sums):
    """Blocks first..last of s = sum_i c_ij votes_ij or, given grad_sum = dL/ds, of dL/dq.

    `prior_ij` is the log prior; without a query (pass 1) it is the coupling itself. What is
    missing has size 0.
    """
    num_lower, num_upper = prior_ij.shape
    backward = grad_sum.shape[0] > 0
    for start in range(0, num_lower, LOWER_CHUNK):
        for n in range(first, last):
            for i in range(start, min(start + LOWER_CHUNK, num_lower)):
                _votes(lower_nipl[n, i], weight[i], votes)
                if query.shape[0] > 0:
                    _couple(votes, query[n], prior_ij[i], leaky, small[0])
                else:
                    for j in range(num_upper):
                        _store(small[0], (j,), _fill(votes, prior_ij[i, j]))
                if backward:
                    _logit_gradient(votes, grad_sum[n], small[0], small[1])
                _add_scaled(small[1] if backward else small[0], votes, sums[n])


@njit(nogil=True, cache=True)
def _gradients(
    first, last, lower_nipl, weight, log_prior_ij, coupling_ij, leaky, queries, grad_sums,
    through_couplings, votes, small, grad_votes, grad_lower_nipl, grad_weight,
):  # fmt: skip
    """Lower capsules first..last: votes once, their gradient summed over passes, both products.

    Pass 1 has the couplings `coupling_ij` for every image; the others have those of their query.
    """
    for start in range(first, last, GRADIENT_CHUNK):
        stop = min(start + GRADIENT_CHUNK, last)
        for n in range(lower_nipl.shape[0]):
            for i in range(start, stop):
                grad_votes_jdl = grad_votes[i - start, n]
                _scale(coupling_ij[i], grad_sums[0, n], grad_votes_jdl)
                if len(queries) > 1:
                    _votes(lower_nipl[n, i], weight[i], votes)
                for k in range(1, len(queries)):
                    _couple(votes, queries[k, n], log_prior_ij[i], leaky, small[0])
                    if through_couplings:
                        _logit_gradient(votes, grad_sums[k, n], small[0], small[1])
                        _add_scaled_twice(
                            small[0], grad_sums[k, n], small[1], queries[k, n], grad_votes_jdl
                        )
                    else:
                        _add_scaled(small[0], grad_sums[k, n], grad_votes_jdl)
                _lower_gradient(weight[i], grad_votes_jdl, grad_lower_nipl[n, i])
        for i in range(start, stop):
            _weight_gradient(lower_nipl, i, grad_votes[i - start], grad_weight[i])


# ------------------------------------------------ tensors in, tensors out


def pack(capsules_bmn: Tensor) -> Tensor:
    """[b, m, n] -> [blocks, m, n, LANES], pose and images padded with zeros."""
    num_images, _, pose_dim = capsules_bmn.shape
    padded = pad(capsules_bmn, (0, -pose_dim % TILE, 0, 0, 0, -num_images % LANES))
    return padded.unflatten(0, (-1, LANES)).movedim(1, -1).contiguous()


def unpack(capsules: Tensor, num_images: int, pose_dim: int) -> Tensor:
    """The reverse of `pack`."""
    return capsules.movedim(-1, 1).flatten(0, 1)[:num_images, :, :pose_dim].contiguous()


def pack_weight(weight_ijpd: Tensor) -> Tensor:
    """Both poses padded to a multiple of TILE; a view where they are one already."""
    lower_dim, upper_dim = weight_ijpd.shape[2:]
    return pad(weight_ijpd, (0, -upper_dim % TILE, 0, -lower_dim % TILE)).contiguous()


def scan(lower, weight, log_prior_ij, coupling_ij, leaky, query=None, grad_sum=None) -> Tensor:
    """s of one pass [blocks, j, d, LANES] without bias or, given dL/ds, dL/dquery.

    Without a query it is pass 1, whose couplings are `coupling_ij` for every image.
    """
    num_upper, _, upper_dim = weight.shape[1:]
    sums = lower.new_zeros(len(lower), num_upper, upper_dim, LANES)
    prior = coupling_ij if query is None else log_prior_ij
    query, grad_sum = (sums[:0] if vectors is None else vectors for vectors in (query, grad_sum))

    def share(first, last):
        votes = torch.empty_like(sums[0])
        small = votes.new_empty(2, num_upper, LANES)
        arrays = _arrays(query, grad_sum, votes, small, sums)
        _scan(first, last, *_arrays(lower, weight, prior), leaky, *arrays)

    _in_threads(share, len(lower))
    return sums


def gradients(
    lower, weight, log_prior_ij, coupling_ij, leaky, queries, grad_sums, through_couplings
):
    """dL/dlower (packed), dL/dweight from each pass's query and dL/ds [k, blocks, j, d, LANES]."""
    grad_lower, grad_weight = torch.empty_like(lower), torch.empty_like(weight)

    def share(first, last):
        votes = torch.empty_like(queries[0, 0])
        small = votes.new_empty(2, votes.shape[0], LANES)
        grad_votes = votes.new_empty(GRADIENT_CHUNK, len(lower), *votes.shape)
        inputs = _arrays(lower, weight, log_prior_ij, coupling_ij)
        outputs = _arrays(votes, small, grad_votes, grad_lower, grad_weight)
        _gradients(
            first, last, *inputs, leaky, *_arrays(queries, grad_sums), through_couplings, *outputs
        )

    _in_threads(share, len(weight))
    return grad_lower, grad_weight


def _arrays(*tensors):
    return [tensor.detach().numpy() for tensor in tensors]


def _in_threads(share, count):
    num_threads = min(torch.get_num_threads(), count)
    edges = [count * thread // num_threads for thread in range(num_threads + 1)]
    if num_threads == 1:
        return share(0, count)
    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(share, edges[:-1], edges[1:]))
