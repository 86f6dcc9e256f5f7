"""A vector type for numba: `Lanes`, one number for each of 32 (or 16) images, in registers.

Over 250 lines, because numba has nothing of the kind: its own vectors are what LLVM finds in plain
loops, and in the loops of routing it does not find them.

What it is. In an array whose last dimension is the image ("lane"), `load(array, index)` reads all
images at an index as one value of LLVM's vector type, `add`, `multiply`, `add_product`, ... work on
such values, and `store` writes one back. LLVM makes AVX-512, AVX2 or NEON instructions of them,
several to a value where the registers are shorter. A scalar operand, such as a weight, is spread to
all lanes. Each function is an `intrinsic` of numba: one part says what types come out (`_operation`
for most), the other emits the instructions. There are as many as routing needs, and no more.

Why not plain loops. `for l in range(32): sums[j, d, l] += factor[j, l] * votes[j, d, l]` says the
same without this file, and was tried for a whole scan (votes eight products a statement, the same
series for the exponential, fused multiply-add allowed, sums in a fixed order). Measured against
this type in one process, one thread, float32, 1152 x 10 capsules, medians of 15, AMD EPYC with
AVX-512, speed as a share of this type's:

    images side by side                     32         16
    plain loops                           0.38-0.52  0.29-0.49
    and an option that numba keeps private     0.75  0.61-0.78

Plain loops are slow because LLVM cannot know that the arrays do not overlap: it asks so at run time
before each loop of 32, and accumulators go through memory. The private option (`noalias`, set from
outside by changing a class of numba's) removes the question, not the traffic. The backward pass is
worse off: the gradient of a weight sums over the images, that is over the lanes, which a plain loop
does one register at a time. `store_totals` sums eight registers together for the price of two or
so; a library's matrix product in its place (torch.bmm) took twice what the multiplications need.

Rounding. Sums have one order, whatever the threads; NaN stays NaN; `exp` is exact to 1e-7 for
float32 and the library's for float64.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 32, 16  # images side by side, the second for small batches: AVX-512 registers of float32
COMPLEX = {"float32": "complex64", "float64": "complex128"}


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
def add(typing, a, b):
    return _operation((a, b), lambda builder, a, b: builder.fadd(a, b))


@intrinsic
def subtract(typing, a, b):
    return _operation((a, b), lambda builder, a, b: builder.fsub(a, b))


@intrinsic
def multiply(typing, a, b):
    return _operation((a, b), lambda builder, a, b: builder.fmul(a, b))


@intrinsic
def divide(typing, a, b):
    return _operation((a, b), lambda builder, a, b: builder.fdiv(a, b))


@intrinsic
def add_product(typing, a, b, c):  # a * b + c
    return _operation((a, b, c), lambda builder, *abc: _call(builder, "fmuladd", *abc))


@intrinsic
def larger(typing, a, b):
    return _operation(
        (a, b), lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b)
    )


@intrinsic
def exp(typing, a):
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
def fill(typing, like, scalar):
    lanes = like if isinstance(like, Lanes) else _lanes_of(like)

    def codegen(context, builder, signature, values):
        return _spread(context, builder, values[1], scalar, lanes)

    return lanes(like, scalar), codegen


@intrinsic
def store_totals(typing, array, index_a, index_b, a0, a1, a2, a3, b0, b1, b2, b3):
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
def load(typing, array, index):
    lanes = _lanes_of(array)

    def codegen(context, builder, signature, values):
        address = _address(context, builder, array, values[0], index, values[1])
        address = builder.bitcast(address, context.get_value_type(lanes).as_pointer())
        return builder.load(address, align=lanes.dtype.bitwidth // 8)

    return lanes(array, index), codegen


@intrinsic
def store(typing, array, index, lanes):
    def codegen(context, builder, signature, values):
        address = _address(context, builder, array, values[0], index, values[1])
        address = builder.bitcast(address, context.get_value_type(lanes).as_pointer())
        builder.store(values[2], address, align=lanes.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, index, lanes), codegen


@intrinsic
def number(typing, array, index, step):
    """The number `step` places after array[index]: neighbours share one address computation."""

    def codegen(context, builder, signature, values):
        address = _address(context, builder, array, values[0], index, values[1])
        return builder.load(
            builder.gep(address, [context.cast(builder, values[2], step, types.intp)])
        )

    return array.dtype(array, index, step), codegen


def arrays(*tensors):
    """NumPy arrays on the memory of the tensors."""
    return [tensor.detach().numpy() for tensor in tensors]


def lane_arrays(*tensors):
    """The same for tensors with lanes: the type of an array tells their number, see `_lanes_of`."""
    found = arrays(*tensors)
    narrow = found[0].shape[-1] == LANES[1]
    return [array.view(COMPLEX[array.dtype.name]) if narrow else array for array in found]
