"""The common parts of all GPU kernels: whole time loops as single CUDA kernels, written in Pallas (Mosaic GPU).

On a GPU, each step of ``lax.scan`` launches several kernels, which takes microseconds however little they compute. Here
a time loop is one launch: weights and states stay in registers, and a step takes as long as its chain of dependent
operations.

A thread computes one unit of one sequence: it holds the unit's state and its column of the weights, one register per
weight. The units of a sequence are padded to its width, a power of two (128 for more than 32 units), so that a block
of 128 threads holds 128 / width sequences. A thread reads the values of the sequence's other units

- from their registers, for up to 32 units: one shuffle per unit and no barrier;
- from shared memory, for up to 128 units: all threads of the block write and read it, with one barrier per step.

Sums are float32 multiply-adds. Arrays are ``(S, M W)``, rows of all units of all sequences, and a thread reads the rows
of the next steps while it computes the current ones. XLA computes everything outside the time loops: the products with
inputs and with the values of slower modules, and the gradients of the weights.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike

from clockwork.ops.backend import default_device
from clockwork.ops.jax_internals import custom_vmap, mlir_gpu, pallas

PyTree = Any

INTERPRET = False  # whether Pallas' interpreter evaluates the kernels, on any machine; for tests
BLOCK_THREADS = 128  # threads per block; Mosaic GPU has no smaller blocks
WARP_THREADS = 32  # threads that can exchange values by shuffles
PARALLEL_SUMS = 4  # partial sums of a product, since each multiply-add waits for the previous one in its sum


def device_refusal() -> str | None:
    """Why JAX's default device cannot run the kernels; None if it is an NVIDIA GPU from Hopper on, which can."""
    device = default_device()
    if device.platform != "gpu":
        return f"the kernels need an NVIDIA GPU from Hopper on, and JAX computes on a {device.platform}"
    capability = str(getattr(device, "compute_capability", ""))
    major, _, _ = capability.partition(".")
    if major.isdigit() and int(major) >= 9:
        return None
    return f"the kernels need an NVIDIA GPU from Hopper on, of compute capability 9.0, got one of {capability}"


def older_gpu() -> bool:
    """Whether JAX's default device is a GPU that cannot run the kernels, so programs must be lowered without them."""
    return default_device().platform == "gpu" and device_refusal() is not None


def dtype_refusal(dtype: DTypeLike, method: str) -> str | None:
    """A sentence that says why the kernels cannot compute in a dtype; None if they can."""
    if dtype in (jnp.float32, jnp.bfloat16):
        return None
    return f'method "{method}" takes float32 and bfloat16, got {np.dtype(dtype).name}'


def width_of(units: int) -> int:
    """The number of threads for a sequence with this many units."""
    return 1 << (units - 1).bit_length() if units <= WARP_THREADS else BLOCK_THREADS


@functools.cache
def _value_per_thread() -> Any:
    """Mosaic GPU's layout of an array that has one value in each thread of a block."""
    _, plgpu = pallas()
    return plgpu.Layout.WG_STRIDED((BLOCK_THREADS,), vec_size=1)


class ThreadMap(NamedTuple):
    """How the units of sequences are assigned to threads; static.

    Attributes:
        units: ``k``, the number of units of a sequence.
        dtype: the dtype to which values are rounded.
        interpret: whether Pallas' interpreter evaluates the kernel, on any machine.
    """

    units: int
    dtype: Any
    interpret: bool

    @property
    def width(self) -> int:
        """The number of threads for a sequence."""
        return width_of(self.units)

    def to_threads(self, x: Array, value: float = 0, rows: int = 0) -> Array:
        """Convert ``(..., M, k)`` to ``(..., threads)``, float32; threads without a unit hold ``value``.

        Args:
            x: an array with the units last and the sequences before them.
            value: the padding.
            rows: the number of rows of padding to append to the first axis.
        """
        sequences, k = x.shape[-2:]
        padding = [(0, rows), *[(0, 0)] * (x.ndim - 3)] if x.ndim > 2 else []
        padding += [(0, -sequences % (BLOCK_THREADS // self.width)), (0, self.width - k)]
        x = jnp.pad(x.astype(jnp.float32), padding, constant_values=value)
        return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])

    def from_threads(self, x: Array, shape: Sequence[int]) -> Array:
        """The inverse of `to_threads`, for a result of this shape ``(..., M, k)``."""
        x = x.reshape(*x.shape[:-1], -1, self.width)
        return x[tuple(map(slice, shape))]

    def mask_to_block(self, mask: np.ndarray, rows: int) -> np.ndarray:
        """Convert a mask ``(S, k)`` that all sequences share to ``(S, 128)``, float32, for the threads of any block.

        Args:
            mask: the mask, known before compilation.
            rows: the number of rows of zeros to append.
        """
        padded = np.pad(mask.astype(np.float32), [(0, rows), (0, self.width - mask.shape[1])])
        return np.tile(padded, (1, BLOCK_THREADS // self.width))


class Thread:
    """The operations of the threads of a block, for the body of a kernel."""

    def __init__(self, threads: ThreadMap, block: Array, shared: Any) -> None:
        self.map, self.shared = threads, shared
        self.own = pallas()[0].ds(block * BLOCK_THREADS, BLOCK_THREADS)

    def read(self, ref: Any, *index: Any, everywhere: bool = False) -> Array:
        """Read one value per thread; ``everywhere`` is for an array from `ThreadMap.mask_to_block`."""
        x = ref[(*index, slice(None) if everywhere else self.own)]
        return self._laid_out(x)

    def zeros(self) -> Array:
        """Return a zero in each thread."""
        return self._laid_out(jnp.zeros(BLOCK_THREADS, jnp.float32))

    def _laid_out(self, x: Array) -> Array:
        return x if self.map.interpret else pallas()[1].layout_cast(x, _value_per_thread())

    def write(self, ref: Any, x: Array, *index: Any) -> None:
        """Write one value per thread."""
        ref[(*index, self.own)] = x

    def rounded(self, x: Array) -> Array:
        """Round to the dtype of the values."""
        if self.map.dtype == jnp.float32:
            return x
        if self.map.interpret:  # XLA would remove the two conversions
            return lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)
        return x.astype(self.map.dtype).astype(jnp.float32)

    def from_units(self, values: Sequence[Array], buffer: int) -> list[list[Array]]:
        """Gather each value from all units of the sequence.

        Args:
            values: one or several values per thread.
            buffer: double-buffer index, alternating to avoid a race: no thread writes what others still read.
        """
        if self.map.width <= WARP_THREADS:
            return [[_shuffle(x, i, self.map.width, self.map.interpret) for i in range(self.map.units)] for x in values]
        for i, value in enumerate(values):
            self.shared[buffer, i] = value
        if not self.map.interpret:
            pallas()[1].commit_smem()  # a barrier: all threads have written this buffer and finished reading the other
        return [[self.shared[buffer, x, i] for i in range(self.map.units)] for x in range(len(values))]

    @staticmethod
    def product(sent: Sequence[Array], weights: Sequence[Array], more: Array) -> Array:
        """``more`` plus the sum of each sender's value times its weight."""
        terms = [more, *(value * weight for value, weight in zip(sent, weights, strict=True))]
        sums = [functools.reduce(jnp.add, terms[i::PARALLEL_SUMS]) for i in range(min(PARALLEL_SUMS, len(terms)))]
        return functools.reduce(jnp.add, sums)


def _shuffle(x: Array, unit: int, width: int, interpret: bool) -> Array:
    """For each thread, the value that the thread of a given unit of the same sequence holds."""
    if width == 1:
        return x
    if interpret:
        return jnp.repeat(x.reshape(-1, width)[:, unit], width)
    (_, plgpu), layout = pallas(), _value_per_thread()
    shape = plgpu.ShapeDtypeStruct((BLOCK_THREADS,), jnp.float32, layout=layout)
    return plgpu.inline_mgpu(arg_types=(layout,), return_type=shape)(functools.partial(_shuffle_ir, unit, width))(x)


def _shuffle_ir(unit: int, width: int, context: Any, x: Any) -> Any:
    """The PTX instruction ``shfl.sync.idx``, in MLIR."""
    del context
    FragmentedArray, utils, ir, nvvm, vector = mlir_gpu()
    word = ir.IntegerType.get_signless(32)
    everybody, source = utils.c(0xFFFFFFFF, word), utils.c(unit, word)
    segments = utils.c(
        ((WARP_THREADS - width) << 8) | (WARP_THREADS - 1), word
    )  # the warp has one segment for each of its sequences
    registers = np.empty_like(x.registers)
    for index, register in np.ndenumerate(x.registers):
        value = utils.bitcast(vector.extract(register, [], [0]), word)
        operands = (everybody, value, source, segments, nvvm.ShflKind.idx)
        # Before jaxlib 0.11 the type of the result is the first argument.
        shuffle = getattr(utils, "nvvm_shfl_sync", None)
        got = nvvm.shfl_sync(*operands) if shuffle is None else shuffle(word, *operands)
        registers[index] = vector.broadcast(register.type, utils.bitcast(got, x.mlir_dtype))
    return FragmentedArray(_registers=registers, _layout=x.layout, _is_signed=None)


def over_rows(
    count: int, ahead: int, read: Callable, step: Callable, carry: PyTree, *, reverse: bool = False
) -> PyTree:
    """Compute ``carry = step(s, buffer, read(s), carry)`` for all rows s, and prefetch the rows.

    Args:
        count: the number of rows, a multiple of ``ahead``.
        ahead: the number of rows to read while the same number of rows before them is computed; even.
        read: reads row s.
        step: maps ``(s, buffer, row, carry)`` to the next carry; the double-buffer index alternates between 0 and 1.
        carry: the carry before the first row.
        reverse: whether to go from the last row to the first.
    """

    def place(s: Any) -> Any:
        return count - 1 - s if reverse else s

    def group(i: Array, state: tuple) -> tuple:
        carry, rows = state
        first = jnp.minimum((i + 1) * ahead, count - ahead)  # past the end, read the last rows again
        after = [read(place(first + j)) for j in range(ahead)]
        for j, row in enumerate(rows):
            carry = step(place(i * ahead + j), j % 2, row, carry)
        return carry, after

    rows = [read(place(jnp.int32(j))) for j in range(ahead)]
    return lax.fori_loop(0, count // ahead, group, (carry, rows))[0]


def launch(
    body: Callable, threads: ThreadMap, arrays: Sequence[Array], results: Sequence[tuple[int, ...]], shared: int
) -> list[Array]:
    """Launch a kernel, with a block for every 128 threads of the arrays.

    Args:
        body: the body of the kernel, called with ``(thread, *arrays, *results)``.
        threads: static.
        arrays: the arguments; the last axis of the first array is the threads.
        results: the shapes of the results.
        shared: the number of values that each thread shares with the others of its block.
    """
    pl, plgpu = pallas()
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in results]
    scratch = [plgpu.SMEM((2, shared, BLOCK_THREADS), jnp.float32)] if threads.width > WARP_THREADS else []
    blocks = arrays[0].shape[-1] // BLOCK_THREADS

    def kernel(block: Callable[[], Array], *refs: Any) -> None:
        body(Thread(threads, block(), refs[-1] if scratch else None), *refs[: len(arrays) + len(results)])

    if threads.interpret:
        interpreted = functools.partial(kernel, lambda: pl.program_id(0))
        return pl.pallas_call(interpreted, shapes, grid=(blocks,), scratch_shapes=scratch, interpret=True)(*arrays)
    return plgpu.kernel(
        functools.partial(kernel, lambda: lax.axis_index("block")),
        out_type=shapes,
        scratch_types=scratch,
        grid=(blocks,),
        grid_names=("block",),
        compiler_params=plgpu.CompilerParams(
            # No thread reads what another one wrote except in `Thread.from_units`, which has its barrier.
            unsafe_no_auto_barriers=True,
            # All layouts are given here; from jax 0.11 on, inferring them would take ten times as long.
            lowering_semantics=plgpu.LoweringSemantics.Lane,
        ),
    )(*arrays)


def weights_to_threads(threads: ThreadMap, weights: Array, sequences: int, *, transposed: bool = False) -> Array:
    """Convert the weights of runs to ``(n, threads)``; the sequences of a run are adjacent and share its weights.

    Args:
        threads: static.
        weights: ``(R, n, k)``, or ``(R, k, n)`` if transposed.
        sequences: the number of sequences of all runs together.
        transposed: whether each thread holds a row of the weights instead of a column.
    """
    each = jnp.transpose(weights, (2, 0, 1) if transposed else (1, 0, 2))  # (n, R, k)
    n, runs, k = each.shape
    each = jnp.broadcast_to(each[:, :, None], (n, runs, sequences // runs, k))
    return threads.to_threads(each.reshape(n, sequences, k))


class Kernel(NamedTuple):
    """A time loop of ``M`` sequences of ``R`` runs as a GPU kernel that JAX can batch and differentiate.

    Attributes:
        cuda: maps ``(threads, shared, own, fixed)`` to the results with a GPU kernel.
        plain: the same in plain JAX, for other devices and for derivatives in forward mode.
    """

    cuda: Callable
    plain: Callable

    def __call__(self, threads: ThreadMap, shared: PyTree, own: PyTree, fixed: PyTree = None) -> PyTree:
        """Evaluate the time loop.

        Args:
            threads: static.
            shared: parameters of the runs, ``(R, ...)``.
            own: arrays of the sequences, ``(..., M, k)``: time first, units last, and before the units the sequences,
                with those of a run side by side. The results have the same form.
            fixed: arrays that all sequences share.
        """
        return _evaluate(self, threads, shared, own, fixed)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _evaluate(kernel: Kernel, threads: ThreadMap, *arguments: PyTree) -> PyTree:
    return _batched(kernel, threads)(*arguments)


@_evaluate.defjvp
def _evaluate_jvp(kernel: Kernel, threads: ThreadMap, primals: tuple, tangents: tuple) -> tuple[PyTree, PyTree]:
    return jax.jvp(functools.partial(kernel.plain, threads), primals, tangents)


@functools.lru_cache(maxsize=512)
def _batched(kernel: Kernel, threads: ThreadMap) -> Callable:
    """The kernel with its batching rule: each ``jax.vmap`` adds sequences or runs."""

    @custom_vmap
    def evaluate(shared: PyTree, own: PyTree, fixed: PyTree) -> PyTree:
        cuda, plain = functools.partial(kernel.cuda, threads), functools.partial(kernel.plain, threads)
        sequences = jax.tree.leaves(own)[0].shape[-2]
        if not isinstance(sequences, int) or not sequences:  # a symbolic size, in `jax.export`, or no sequence
            return plain(shared, own, fixed)
        if threads.interpret:
            return cuda(shared, own, fixed)
        return lax.platform_dependent(shared, own, fixed, cuda=cuda, default=plain)

    @evaluate.def_vmap
    def _(size: int, batched: tuple, shared: PyTree, own: PyTree, fixed: PyTree) -> tuple[PyTree, PyTree]:
        def mapped(x: Array, has: bool) -> Array:
            return x if has else jnp.broadcast_to(x[None], (size, *x.shape))

        def merge(x: Array, has: bool) -> Array:
            x = jnp.moveaxis(mapped(x, has), 0, -3)
            return x.reshape(*x.shape[:-3], size * x.shape[-2], x.shape[-1])

        def split(x: Array) -> Array:
            x = x.reshape(*x.shape[:-2], size, x.shape[-2] // size, x.shape[-1])
            return jnp.moveaxis(x, -3, 0)

        if any(jax.tree.leaves(batched[0])) or jax.tree.leaves(shared)[0].shape[0] > 1:
            each = jax.tree.map(mapped, shared, batched[0])
            shared = jax.tree.map(lambda x: x.reshape(size * x.shape[1], *x.shape[2:]), each)
        results = jax.tree.map(split, evaluate(shared, jax.tree.map(merge, own, batched[1]), fixed))
        return results, jax.tree.map(lambda _: True, results)

    return evaluate
