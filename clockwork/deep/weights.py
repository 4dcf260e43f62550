"""The weights of a deep transition, and the initialiser that its authors used."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
from jax import Array, lax
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike, DTypeLike

from clockwork.checks import ArgumentError, finite, integer, shown
from clockwork.ops.linalg import matmul
from clockwork.weights import Normal, draw, no_inputs

POWER_ITERATIONS = 300


class DeepWeights(NamedTuple):
    """The weights of a transition of ``L`` layers with ``n_1, ..., n_L`` units, of which ``n_L = N`` are hidden units.

    With shortcuts, every layer receives the previous hidden state and the input; without them, only the first layer
    does. A transition of one layer is that of a simple RNN. The weights are a tuple of floating-point arrays, and so a
    pytree that ``jax.grad``, ``jax.vmap`` and optax accept.

    Attributes:
        input: ``(I, n_1)``, or ``(I, M)`` with shortcuts, where ``M = n_1 + ... + n_L``: the weights of all layers side
            by side. I is 0 for a layer without inputs.
        recurrent: ``(N, n_1)``, or ``(N, M)`` with shortcuts, applied as ``h @ W``.
        between: ``L - 1`` arrays ``(n_k, n_{k+1})``, from each layer to the next.
        bias: ``(M,)``, the biases of all layers side by side.

    Example:
        >>> import jax
        >>> from clockwork.deep import deep_init
        >>> weights = deep_init(jax.random.key(0), hidden=400, inputs=88, middle=(300,))
        >>> weights.sizes, weights.shortcuts, weights.recurrent.shape, weights.between[0].shape
        ((300, 400), True, (400, 700), (300, 400))
    """

    input: Array
    recurrent: Array
    between: tuple[Array, ...]
    bias: Array

    @property
    def sizes(self) -> tuple[int, ...]:
        """``n_1, ..., n_L``, the number of units of each layer; the last is ``N``."""
        if not self.between:
            return (self.recurrent.shape[1],)
        return (*(w.shape[0] for w in self.between), self.between[-1].shape[1])

    @property
    def shortcuts(self) -> bool:
        """Whether every layer receives the previous hidden state and the input; True if there is only one layer."""
        return self.recurrent.shape[1] == self.bias.shape[0]

    @property
    def fed(self) -> tuple[int, ...]:
        """The sizes of the layers that receive the previous hidden state and the input: all, or the first alone."""
        return self.sizes if self.shortcuts else self.sizes[:1]

    def flat(self, prefix: str = "") -> dict[str, Array]:
        """The same weights as a flat dictionary, as safetensors and other formats keep them.

        Args:
            prefix: put before every name, such as ``"encoder."``.

        Returns:
            ``input``, ``recurrent``, ``between.0`` to ``between.{L - 2}`` and ``bias``, of the shapes above.

        Example:
            >>> import jax
            >>> from clockwork.deep import deep_init
            >>> sorted(deep_init(jax.random.key(0), hidden=4, inputs=2, middle=(3,)).flat("encoder."))
            ['encoder.between.0', 'encoder.bias', 'encoder.input', 'encoder.recurrent']
        """
        blocks = {f"{prefix}between.{k}": w for k, w in enumerate(self.between)}
        return {
            f"{prefix}input": self.input,
            f"{prefix}recurrent": self.recurrent,
            **blocks,
            f"{prefix}bias": self.bias,
        }

    @classmethod
    def from_flat(cls, arrays: Mapping[str, ArrayLike], prefix: str = "") -> "DeepWeights":
        """The inverse of `flat`.

        Args:
            arrays: the arrays by name; those whose name does not begin with the prefix are ignored. A layer without
                inputs needs no ``input``.
            prefix: what every name begins with.

        Raises:
            ValueError: if a name is missing or unknown, or the shapes of the weights do not fit together.

        Example:
            >>> import jax
            >>> from clockwork.deep import deep_init
            >>> flat = deep_init(jax.random.key(0), hidden=4, inputs=2, middle=(3,)).flat()
            >>> DeepWeights.from_flat(flat).sizes
            (3, 4)
        """
        given = {name for name in arrays if name.startswith(prefix)}
        count = sum(name.startswith(f"{prefix}between.") for name in given)
        blocks = [f"{prefix}between.{k}" for k in range(count)]
        wanted = [f"{prefix}input", f"{prefix}recurrent", *blocks, f"{prefix}bias"]
        if given not in (set(wanted), set(wanted[1:])):
            raise ValueError(f"weights of a deep transition must be named {wanted}, got {sorted(given)}")
        recurrent, *between, bias = (jnp.asarray(arrays[name]) for name in wanted[1:])
        first = arrays[wanted[0]] if wanted[0] in given else no_inputs(recurrent[0])
        weights = cls(jnp.asarray(first), recurrent, tuple(between), bias)
        check_deep_weights(weights)
        return weights


jax.export.register_namedtuple_serialization(DeepWeights, serialized_name="clockwork.deep.DeepWeights")


class Sparse(NamedTuple):
    """An initialiser of sparse matrices, with the call of those in ``jax.nn.initializers``.

    Every row of the matrix has the same number of entries that are not zero, drawn from N(0, 1) at random places. The
    matrix is then scaled to the given largest singular value, to about a thousandth. The authors of Pascanu et al.
    (2013) drew their recurrent weights so, with 20 entries a row and a largest singular value of 1, in their public
    code.

    Attributes:
        nonzeros: how many entries of a row are not zero; all of a row that has fewer.
        norm: the largest singular value.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from clockwork.deep import Sparse
        >>> w = Sparse(nonzeros=20)(jax.random.key(0), (100, 200))
        >>> int((w != 0).sum(1).max()), round(float(jnp.linalg.norm(w, 2)), 2)
        (20, 1.0)
    """

    nonzeros: int = 20
    norm: float = 1.0

    def __call__(self, key: Array, shape: Sequence[Any], dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
        """A matrix of this shape ``(K, N)`` and dtype."""
        del out_sharding
        nonzeros, norm = integer("nonzeros", self.nonzeros, least=1), finite("norm", self.norm, least=0)
        if len(shape) != 2:
            raise ValueError(f"Sparse draws matrices, got the shape {tuple(shape)}")
        values_key, places_key = jax.random.split(key)
        values = jax.random.normal(values_key, tuple(shape), dtype)
        order = jax.random.uniform(places_key, tuple(shape))
        chosen = jnp.argsort(jnp.argsort(order, axis=1), axis=1) < nonzeros
        matrix = jnp.where(chosen, values, jnp.zeros((), dtype))
        return matrix * (norm / _largest_singular_value(matrix)).astype(dtype)


def _largest_singular_value(matrix: Array) -> Array:
    """The largest singular value, ``()``, to about a thousandth, by power iteration.

    LAPACK's decomposition, as XLA calls it on a CPU of several devices, can wait for itself forever.
    """

    def step(_: Array, v: Array) -> Array:
        v = matmul(matmul(v, matrix.T), matrix)
        return v / jnp.linalg.norm(v)

    start = jnp.full(matrix.shape[1], matrix.shape[1] ** -0.5, matrix.dtype)
    return jnp.linalg.norm(matmul(lax.fori_loop(0, POWER_ITERATIONS, step, start), matrix.T))


def deep_init(
    key: Array,
    hidden: int,
    inputs: int = 0,
    middle: Sequence[int] = (),
    *,
    shortcuts: bool = True,
    stddev: float = 0.1,
    dtype: DTypeLike = jnp.float32,
) -> DeepWeights:
    """Draw all weights and biases of a deep transition from N(0, stddev²).

    The cells and networks of `clockwork.nn` draw theirs in the same way: the same key gives the same weights.

    Args:
        key: a JAX random key.
        hidden: ``N``, the number of hidden units.
        inputs: ``I``, the number of inputs; 0 for none.
        middle: ``n_1, ..., n_{L-1}``, the number of units of each layer between two hidden states; none make a simple
            RNN.
        shortcuts: whether every layer receives the previous hidden state and the input: DT(S)-RNN in the paper, DT-RNN
            without them.
        stddev: the standard deviation.
        dtype: the dtype of the weights, floating point. They are drawn in at least float32 and rounded.

    Raises:
        ValueError: if a number of units is not at least 1, ``inputs`` or ``stddev`` is negative, a number is not
            finite, or ``dtype`` is not floating point.

    Example:
        >>> import jax
        >>> from clockwork.deep import deep_init
        >>> weights = deep_init(jax.random.key(0), hidden=400, inputs=88, middle=(400,), shortcuts=False)
        >>> weights.input.shape, weights.recurrent.shape, weights.bias.shape
        ((88, 400), (400, 400), (800,))
    """
    normal = Normal(finite("stddev", stddev, least=0))
    sizes = check_sizes(hidden, middle)
    return initialize_deep(key, sizes, integer("inputs", inputs, least=0), shortcuts, normal, normal, normal, dtype)


def initialize_deep(
    key: Array,
    sizes: Sequence[int],
    inputs: int,
    shortcuts: bool,
    kernel_init: Initializer | None = None,
    recurrent_kernel_init: Initializer | None = None,
    bias_init: Initializer | None = None,
    dtype: DTypeLike = jnp.float32,
) -> DeepWeights:
    """Draw the weights of a deep transition with any initialisers; the default of each is N(0, 0.1²).

    Args:
        key: a JAX random key, split into three: for the input weights, all other weights, and the biases.
        sizes: ``n_1, ..., n_L``.
        inputs: ``I``, the number of inputs; 0 for none.
        shortcuts: whether every layer receives the previous hidden state and the input.
        kernel_init: draws the input weights ``(I, n_k)`` of each layer that receives the input.
        recurrent_kernel_init: draws the matrices ``(N, n_k)`` from the hidden state and ``(n_k, n_{k+1})`` between
            layers, each with a key of its own.
        bias_init: draws the biases ``(n_k,)`` of each layer.
        dtype: the dtype of the weights, floating point.
    """
    kernel, recurrent, bias = kernel_init or Normal(), recurrent_kernel_init or Normal(), bias_init or Normal()
    input_key, recurrent_key, bias_key = jax.random.split(key, 3)
    fed, width = sizes if shortcuts else sizes[:1], sizes[-1]

    def side_by_side(initializer: Initializer, key: Array, shapes: list[tuple[int, ...]]) -> Array:
        keys = jax.random.split(key, len(shapes))
        return jnp.concatenate([draw(initializer, k, s, dtype) for k, s in zip(keys, shapes, strict=True)], -1)

    between_key, recurrent_key = jax.random.split(recurrent_key)
    between_keys = jax.random.split(between_key, max(len(sizes) - 1, 1))[: len(sizes) - 1]
    between = zip(between_keys, pairwise(sizes), strict=True)
    return DeepWeights(
        side_by_side(kernel, input_key, [(inputs, n) for n in fed]) if inputs else jnp.zeros((0, sum(fed)), dtype),
        side_by_side(recurrent, recurrent_key, [(width, n) for n in fed]),
        tuple(draw(recurrent, k, (below, above), dtype) for k, (below, above) in between),
        side_by_side(bias, bias_key, [(n,) for n in sizes]),
    )


def check_sizes(hidden: int, middle: Sequence[int]) -> tuple[int, ...]:
    """``n_1, ..., n_L``; ``ValueError`` unless all are integers of at least 1."""
    if isinstance(middle, (int, str)) or not isinstance(middle, Sequence):
        raise ArgumentError("middle", f"must be a sequence of layer sizes such as (400,), got {shown(middle)}")
    return (*(integer("middle", n, least=1) for n in middle), integer("hidden", hidden, least=1))


def check_mlp_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """The sizes of the layers of an MLP; ``ValueError`` unless there is one and all are integers of at least 1."""
    if isinstance(sizes, (int, str)) or not isinstance(sizes, Sequence) or not sizes:
        raise ValueError(f"sizes must be a sequence of at least one layer size such as (400, 88), got {sizes!r}")
    return tuple(integer("sizes", n, least=1) for n in sizes)


def check_deep_weights(weights: DeepWeights) -> None:
    """Raise ``ValueError`` unless the weights are those of a deep transition."""
    if not isinstance(weights, DeepWeights):
        raise ArgumentError("weights", f"must be DeepWeights, such as deep_init(key, hidden), got {shown(weights)}")
    given = [tuple(w.shape) for w in (weights.input, weights.recurrent, *weights.between, weights.bias)]
    if [len(shape) for shape in given] == [2] * (len(given) - 1) + [1]:
        sizes = weights.sizes
        for fed in (sizes, sizes[:1]):
            between = list(pairwise(sizes))
            if given == [(given[0][0], sum(fed)), (sizes[-1], sum(fed)), *between, (sum(sizes),)]:
                return
    raise ValueError(
        f"weights of a deep transition must have shapes such as (I, n), (N, n), (n, N) and (n + N,), got {given}"
    )
