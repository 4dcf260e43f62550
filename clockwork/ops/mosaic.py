"""Whole time loops as single kernels of a CUDA GPU, written in Pallas (Mosaic GPU): what all of them share.

A step of ``lax.scan`` is several kernel launches on a GPU, microseconds however little is in it. Here a
loop is one launch: weights and states stay in registers, and a step takes as long as its chain of dependent operations.

A thread has one unit of one sequence: that unit's column of the weights, a register each, and its state. The units
of a sequence are filled up to a power of two, its width, so that a block of 128 threads has 128 / width sequences.
What the sequence's other units sent, a thread gets

- up to 32 units, from their registers: a shuffle for each, and no barrier;
- up to 128, from shared memory, which all threads of the block write and read: one barrier a step.

Sums are float32 multiply-adds. Arrays are ``(S, M W)``, rows of all units of all sequences, and a thread reads what it
needs of the next steps while it computes those at hand. Everything but the loops is left to XLA: the products with
inputs, with what slower modules send, and the gradients of the weights.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.custom_batching import custom_vmap
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

PyTree = Any

INTERPRET = False  # whether kernels are computed by Pallas' interpreter, on any machine: for tests
BLOCK = 128  # threads of a block: Mosaic GPU knows no fewer
WARP = 32  # threads that can shuffle
LAYOUT = plgpu.Layout.WG_STRIDED((BLOCK,), vec_size=1)  # a value for each thread
CHAINS = 4  # sums in which a product is added up, since each addition waits for the one before it


def width_of(units: int) -> int:
    """Threads of a sequence of so many units."""
    return 1 << (units - 1).bit_length() if units <= WARP else BLOCK


class Way(NamedTuple):
    """How a loop is computed, static.

    Attributes:
        units: ``k`` of a sequence.
        dtype: to which values are rounded.
        interpret: whether by Pallas' interpreter, on any machine.
    """

    units: int
    dtype: Any
    interpret: bool

    @property
    def width(self) -> int:
        """Threads of a sequence."""
        return width_of(self.units)

    def lanes(self, sequences: int) -> int:
        """Threads of so many sequences, in whole blocks."""
        return -(-sequences * self.width // BLOCK) * BLOCK

    def spread(self, x: Array, value: float = 0) -> Array:
        """``(..., M, k)`` as ``(..., lanes)``, float32, with a value where there is no unit."""
        sequences, k = x.shape[-2:]
        total = self.lanes(sequences)
        x = jnp.pad(x.astype(jnp.float32), [(0, 0)] * (x.ndim - 1) + [(0, self.width - k)], constant_values=value)
        x = x.reshape(*x.shape[:-2], sequences * self.width)
        return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, total - x.shape[-1])], constant_values=value)

    def gather(self, x: Array, sequences: int) -> Array:
        """The inverse of `spread`."""
        x = x[..., : sequences * self.width].reshape(*x.shape[:-1], sequences, self.width)
        return x[..., : self.units]

    def mask(self, x: Array) -> Array:
        """``(S, k)``, the same for all sequences, as ``(S, 128)``."""
        x = jnp.pad(x.astype(jnp.float32), [(0, 0), (0, self.width - x.shape[1])])
        return jnp.tile(x, (1, BLOCK // self.width))


class Thread:
    """The operations of a kernel's body."""

    def __init__(self, way: Way, block: Array, shared: Any) -> None:
        self.way, self.shared = way, shared
        self.own = pl.ds(block * BLOCK, BLOCK)

    def read(self, ref: Any, *index: Any, everywhere: bool = False) -> Array:
        """A value for each thread; of a `Way.mask` if ``everywhere``."""
        x = ref[(*index, slice(None) if everywhere else self.own)]
        return self._laid_out(x)

    def zeros(self) -> Array:
        """A zero in each thread."""
        return self._laid_out(jnp.zeros(BLOCK, jnp.float32))

    def _laid_out(self, x: Array) -> Array:
        return x if self.way.interpret else plgpu.layout_cast(x, LAYOUT)

    def write(self, ref: Any, x: Array, *index: Any) -> None:
        """A value from each thread."""
        ref[(*index, self.own)] = x

    def rounded(self, x: Array) -> Array:
        """As a value of the way's dtype."""
        if self.way.dtype == jnp.float32:
            return x
        if self.way.interpret:  # XLA would leave out both conversions
            return lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)
        return x.astype(self.way.dtype).astype(jnp.float32)

    def senders(self, values: Sequence[Array], turn: int) -> list[list[Array]]:
        """For each of several values: what it is in the threads of the sequence's units.

        Args:
            values: of all threads.
            turn: 0 and 1 by turns, so that nobody writes what others still read.
        """
        if self.way.width <= WARP:
            return [[_shuffle(x, i, self.way.width, self.way.interpret) for i in range(self.way.units)] for x in values]
        for i, value in enumerate(values):
            self.shared[turn, i] = value
        if not self.way.interpret:
            plgpu.commit_smem()  # a barrier: all have written, and read what they needed of the turn before
        return [[self.shared[turn, x, i] for i in range(self.way.units)] for x in range(len(values))]

    @staticmethod
    def product(sent: Sequence[Array], weights: Sequence[Array], more: Array) -> Array:
        """``more`` plus what each sender sent times its weight."""
        terms = [more, *(value * weight for value, weight in zip(sent, weights, strict=True))]
        chains = [functools.reduce(jnp.add, terms[i::CHAINS]) for i in range(min(CHAINS, len(terms)))]
        return functools.reduce(jnp.add, chains)


def _shuffle(x: Array, unit: int, width: int, interpret: bool) -> Array:
    """In each thread: what the thread of a unit of the same sequence has."""
    if width == 1:
        return x
    if interpret:
        return jnp.repeat(x.reshape(-1, width)[:, unit], width)
    shape = plgpu.ShapeDtypeStruct((BLOCK,), jnp.float32, layout=LAYOUT)
    return plgpu.inline_mgpu(arg_types=(LAYOUT,), return_type=shape)(functools.partial(_shuffle_ir, unit, width))(x)


def _shuffle_ir(unit: int, width: int, context: Any, x: Any) -> Any:
    """The PTX instruction ``shfl.sync.idx``, in MLIR."""
    from jax.experimental.mosaic.gpu import FragmentedArray, utils
    from jaxlib.mlir import ir
    from jaxlib.mlir.dialects import nvvm, vector

    del context
    word = ir.IntegerType.get_signless(32)
    everybody, source = utils.c(0xFFFFFFFF, word), utils.c(unit, word)
    segments = utils.c(((WARP - width) << 8) | (WARP - 1), word)  # the warp falls into as many as it has sequences
    registers = np.empty_like(x.registers)
    for index, register in np.ndenumerate(x.registers):
        value = utils.bitcast(vector.extract(register, [], [0]), word)
        operands = (everybody, value, source, segments, nvvm.ShflKind.idx)
        # Before jaxlib 0.11 the type of the result is the first argument.
        shuffle = getattr(utils, "nvvm_shfl_sync", None)
        got = nvvm.shfl_sync(*operands) if shuffle is None else shuffle(word, *operands)
        registers[index] = vector.broadcast(register.type, utils.bitcast(got, x.mlir_dtype))
    return FragmentedArray(_registers=registers, _layout=x.layout, _is_signed=None)


def loop(count: int, ahead: int, read: Callable, step: Callable, carry: PyTree, *, reverse: bool = False) -> PyTree:
    """``carry = step(s, turn, read(s), carry)`` for all rows.

    Args:
        count: of rows, a multiple of ``ahead``.
        ahead: how many rows are read while as many before them are computed; even.
        read: row s.
        step: ``(s, turn, row, carry)``; turn is 0 and 1 by turns.
        carry: before the first.
        reverse: from the last row to the first.
    """

    def place(s: Any) -> Any:
        return count - 1 - s if reverse else s

    def group(i: Array, state: tuple) -> tuple:
        carry, rows = state
        first = jnp.minimum((i + 1) * ahead, count - ahead)  # after the last, the last again
        after = [read(place(first + j)) for j in range(ahead)]
        for j, row in enumerate(rows):
            carry = step(place(i * ahead + j), j % 2, row, carry)
        return carry, after

    rows = [read(place(jnp.int32(j))) for j in range(ahead)]
    return lax.fori_loop(0, count // ahead, group, (carry, rows))[0]


def launch(
    body: Callable, way: Way, arrays: Sequence[Array], results: Sequence[tuple[int, ...]], shared: int
) -> list[Array]:
    """A kernel of so many blocks as the arrays' lanes need.

    Args:
        body: ``(thread, *arrays, *results)``.
        way: static.
        arrays: the last of their axes are the lanes.
        results: shapes.
        shared: how many values each thread shows the others of its block.
    """
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in results]
    scratch = [plgpu.SMEM((2, shared, BLOCK), jnp.float32)] if way.width > WARP else []
    blocks = arrays[0].shape[-1] // BLOCK

    def kernel(block: Callable[[], Array], *refs: Any) -> None:
        body(Thread(way, block(), refs[-1] if scratch else None), *refs[: len(arrays) + len(results)])

    if way.interpret:
        interpreted = functools.partial(kernel, lambda: pl.program_id(0))
        return pl.pallas_call(interpreted, shapes, grid=(blocks,), scratch_shapes=scratch, interpret=True)(*arrays)
    return plgpu.kernel(
        functools.partial(kernel, lambda: lax.axis_index("block")),
        out_type=shapes,
        scratch_types=scratch,
        grid=(blocks,),
        grid_names=("block",),
        compiler_params=plgpu.CompilerParams(
            # No thread reads what another one wrote but in `Thread.senders`, which has its barrier.
            unsafe_no_auto_barriers=True,
            # Every array's layout is given here; from jax 0.11 on it would be searched for, ten times as long.
            lowering_semantics=plgpu.LoweringSemantics.Lane,
        ),
    )(*arrays)


def filled(x: Array, ahead: int, value: float = 0) -> Array:
    """With rows of a value at the end, as many as make up whole groups for `loop`."""
    return jnp.pad(x, [(0, -x.shape[0] % ahead)] + [(0, 0)] * (x.ndim - 1), constant_values=value)


def columns(way: Way, weights: Array, sequences: int) -> Array:
    """Weights ``(G, n, k)`` of ``G`` runs as ``(n, lanes)``: a run's sequences follow each other and share them."""
    runs, n = weights.shape[:2]
    each = jnp.broadcast_to(jnp.swapaxes(weights, 0, 1)[:, :, None], (n, runs, sequences // runs, way.units))
    return way.spread(each.reshape(n, sequences, way.units))


class Loop(NamedTuple):
    """A time loop of ``M`` sequences of ``G`` runs; how it is batched and differentiated.

    Attributes:
        kernel: ``(way, shared, own, fixed)``, for CUDA.
        plain: the same in plain JAX, for all else.
    """

    kernel: Callable
    plain: Callable

    def __call__(self, way: Way, shared: PyTree, own: PyTree, fixed: PyTree = None) -> PyTree:
        """Evaluate.

        Args:
            way: static.
            shared: parameters of the runs, ``(G, ...)``.
            own: of the sequences, ``(M, ...)``; so are the results.
            fixed: the same for all.
        """
        return _evaluate(self, way, shared, own, fixed)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _evaluate(loop: Loop, way: Way, *arguments: PyTree) -> PyTree:
    return _batched(loop, way)(*arguments)


@_evaluate.defjvp
def _evaluate_jvp(loop: Loop, way: Way, primals: tuple, tangents: tuple) -> tuple[PyTree, PyTree]:
    return jax.jvp(functools.partial(loop.plain, way), primals, tangents)


@functools.lru_cache(maxsize=512)
def _batched(loop: Loop, way: Way) -> Callable:
    """The loop under any number of ``jax.vmap``: batches and runs are more sequences and runs."""

    @custom_vmap
    def evaluate(shared: PyTree, own: PyTree, fixed: PyTree) -> PyTree:
        kernel, plain = functools.partial(loop.kernel, way), functools.partial(loop.plain, way)
        sequences = jax.tree.leaves(own)[0].shape[0]
        if not isinstance(sequences, int) or not sequences:  # of any size, in `jax.export`; of none
            return plain(shared, own, fixed)
        if way.interpret:
            return kernel(shared, own, fixed)
        return lax.platform_dependent(shared, own, fixed, cuda=kernel, default=plain)

    @evaluate.def_vmap
    def _(size: int, batched: tuple, shared: PyTree, own: PyTree, fixed: PyTree) -> tuple[PyTree, PyTree]:
        def merge(x: Array, has: bool) -> Array:
            x = x if has else jnp.broadcast_to(x[None], (size, *x.shape))
            return x.reshape(size * x.shape[1], *x.shape[2:])

        if any(jax.tree.leaves(batched[0])) or jax.tree.leaves(shared)[0].shape[0] > 1:
            shared = jax.tree.map(merge, shared, batched[0])
        results = evaluate(shared, jax.tree.map(merge, own, batched[1]), fixed)
        each = jax.tree.leaves(own)[0].shape[1 if jax.tree.leaves(batched[1])[0] else 0]
        results = jax.tree.map(lambda x: x.reshape(size, each, *x.shape[1:]), results)
        return results, jax.tree.map(lambda _: True, results)

    return evaluate
