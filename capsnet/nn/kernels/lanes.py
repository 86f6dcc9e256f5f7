"""A vector type for numba: `Lanes` holds one number for each of 32 (or 16) images in registers.

numba has no vector type, and LLVM does not vectorize the loops of routing by itself: plain loops
over the images have 0.3 to 0.5 of the speed, because arrays may overlap and accumulators stay in
memory.

The last dimension of an array is the image ("lane"). `load(array, index)` reads all images at an
index as one LLVM vector, `add`, `multiply`, `add_product`, ... compute with vectors, and `store`
writes one. A scalar operand is copied to all lanes. LLVM emits AVX-512, AVX2 or NEON instructions.
Each function is an `intrinsic` of numba, which gives the result's type and emits the instructions.

Sums have a fixed order for any number of threads. NaN stays NaN. `exp` is exact to 1e-7 for float32
and the library's for float64.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 32, 16  # images in a vector, the second for small batches; AVX-512 holds 16 float32
COMPLEX = {"float32": "complex64", "float64": "complex128"}


class Lanes(types.Type):
    """One number for each image of a block: the last dimension of an array."""

    def __init__(self, dtype, width):
        super().__init__(name=f"Lanes({dtype}, {width})")
        self.dtype, self.width = dtype, width


def _lanes_of(array):
    """The Lanes of an array type: a complex dtype marks 16 lanes.

    A numba array type has no width. The names of record types change between processes, which mixes
    up widths in numba's disk cache.
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
    """Copy a scalar to every lane; return lanes unchanged."""
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
    """Result type and code of an operation on lanes. Scalar operands are copied to all lanes."""
    lanes = next(kind for kind in kinds if isinstance(kind, Lanes))

    def codegen(context, builder, signature, values):
        pairs = zip(values, kinds, strict=True)
        return emit(builder, *(_spread(context, builder, v, k, lanes) for v, k in pairs))

    return lanes(*kinds), codegen


def _of_two(emit):
    @intrinsic
    def operation(typing, a, b):
        return _operation((a, b), emit)

    return operation


add = _of_two(lambda builder, a, b: builder.fadd(a, b))
subtract = _of_two(lambda builder, a, b: builder.fsub(a, b))
multiply = _of_two(lambda builder, a, b: builder.fmul(a, b))
divide = _of_two(lambda builder, a, b: builder.fdiv(a, b))
larger = _of_two(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))


@intrinsic
def add_product(typing, a, b, c):  # a * b + c
    return _operation((a, b, c), lambda builder, *abc: _call(builder, "fmuladd", *abc))


@intrinsic
def exp(typing, a):
    return _operation((a,), _emit_exp)


def _emit_exp(builder, x):
    """exp(x) for x <= 0. float32: 2^n exp(rest) with n = round(x / ln 2), |rest| <= ln 2 / 2."""
    kind = x.type
    if kind.element == ir.DoubleType():
        return _call(builder, "exp", x)

    def same(value):
        return ir.Constant(kind, [value] * kind.count)

    rounder = same(1.5 * 2**23)  # adding it rounds to an integer, which the low bits hold
    shifted = _call(builder, "fmuladd", x, same(1.4426950408889634), rounder)  # 1 / ln 2
    power = builder.fsub(shifted, rounder)
    # ln 2 in two parts, the first one exact
    rest = _call(builder, "fmuladd", power, same(-0.693359375), x)
    rest = _call(builder, "fmuladd", power, same(0.693359375 - 0.6931471805599453), rest)
    series = same(1 / 5040)  # Taylor series to the 7th power, error below 6e-9
    for factorial in (720, 120, 24, 6, 2, 1, 1):
        series = _call(builder, "fmuladd", series, rest, same(1 / factorial))
    bits = builder.bitcast(shifted, _integers([0] * kind.count).type)
    bits = builder.shl(bits, _integers([23] * kind.count))
    two_to_n = builder.bitcast(builder.add(bits, _integers([127 << 23] * kind.count)), kind)
    vanishes = builder.fcmp_ordered("<", x, same(-87.0))  # below the normal float32
    return builder.select(vanishes, same(0.0), builder.fmul(series, two_to_n))


@intrinsic
def fill(typing, like, scalar):
    lanes = like if isinstance(like, Lanes) else _lanes_of(like)

    def codegen(context, builder, signature, values):
        return _spread(context, builder, values[1], scalar, lanes)

    return lanes(like, scalar), codegen


@intrinsic
def store_totals(typing, array, index_a, index_b, a0, a1, a2, a3, b0, b1, b2, b3):
    """Sum each vector over its lanes: a0 to a3 from array[index_a] on, b0 to b3 from index_b on.

    Pairwise, in a fixed order. After the first halving two vectors share a register, so eight sums
    cost little more than one.
    """

    def codegen(context, builder, signature, values):
        kind = array.dtype
        vectors = [_add_halves(builder, [vector], a0.width) for vector in values[3:]]
        width = a0.width // 2  # lanes of a vector
        for lanes_each in (width, width // 2, width // 4):
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [_add_halves(builder, pair, lanes_each) for pair in pairs]
        (vector,) = vectors
        while vector.type.count > 8:
            vector = _add_halves(builder, [vector], vector.type.count // 8)
        for position, index in ((0, index_a), (1, index_b)):
            address = _address(context, builder, array, values[0], index, values[1 + position])
            four = _integers([4 * position + n for n in range(4)])
            four = builder.shuffle_vector(vector, vector, four)
            address = builder.bitcast(address, four.type.as_pointer())
            builder.store(four, address, align=kind.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, index_a, index_b, a0, a1, a2, a3, b0, b1, b2, b3), codegen


def _add_halves(builder, vectors, lanes_each):
    """Add the two halves of each run of `lanes_each` lanes of one or two vectors."""
    width = vectors[0].type.count * len(vectors)
    starts = range(0, width, lanes_each)
    first = [start + lane for start in starts for lane in range(lanes_each // 2)]
    second = [lane + lanes_each // 2 for lane in first]
    halves = (
        builder.shuffle_vector(vectors[0], vectors[-1], _integers(h)) for h in (first, second)
    )
    return builder.fadd(*halves)


def _address(context, builder, array, value, index, indices):
    """Address of array[index], unchecked; missing last indices are zero."""
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
    """The number `step` places after array[index]. Neighbours share one address computation."""

    def codegen(context, builder, signature, values):
        address = _address(context, builder, array, values[0], index, values[1])
        step_value = context.cast(builder, values[2], step, types.intp)
        return builder.load(builder.gep(address, [step_value]))

    return array.dtype(array, index, step), codegen


def arrays(*tensors):
    """NumPy arrays that share memory with the tensors."""
    return [tensor.detach().numpy() for tensor in tensors]


def lane_arrays(*tensors):
    """The same for tensors with lanes, whose number the dtype marks, see `_lanes_of`."""
    found = arrays(*tensors)
    narrow = found[0].shape[-1] == LANES[1]
    return [array.view(COMPLEX[array.dtype.name]) if narrow else array for array in found]
