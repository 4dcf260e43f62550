"""The weights of a clockwork layer."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike, DTypeLike

from clockwork.checks import ArgumentError, finite, integer, listed, shaped, shown
from clockwork.clock import Clock, check_clock


class Weights(NamedTuple):
    """The weights of a clockwork layer in sender blocks, without the zeros of the triangle.

    Module j has k_j units, starting at unit a_j. ``recurrent[j]`` holds the weights from module j to every faster
    module and, in its last k_j columns, to itself: ``y_j @ recurrent[j]`` is the whole contribution of module j to the
    pre-activations. The blocks hold exactly the paper's N_H recurrent weights (Koutník et al. 2014, appendix). The
    weights are a tuple of floating-point arrays, and so a pytree that ``jax.grad``, ``jax.vmap`` and optax accept.

    Attributes:
        input: ``(I, N)``; I is 0 for a layer without inputs.
        recurrent: ``G`` arrays of shape ``(k_j, a_j + k_j)``.
        bias: ``(N,)``.

    Example:
        >>> import clockwork as cw, jax
        >>> clock = cw.Clock(periods=(1, 2, 4), sizes=(4, 4, 3))
        >>> weights = cw.init(jax.random.key(0), clock, inputs=2)
        >>> [block.shape for block in weights.recurrent]
        [(4, 4), (4, 8), (3, 11)]
    """

    input: Array
    recurrent: tuple[Array, ...]
    bias: Array

    def dense(self, clock: Clock) -> tuple[Array, Array, Array]:
        """The same weights as full matrices, in the row-vector convention ``h @ W``.

        Args:
            clock: the layer's clock.

        Returns:
            ``(I, N)`` input weights, ``(N, N)`` recurrent weights, block lower triangular (the
            paper's ``W_H``, which is applied from the left, is their transpose), ``(N,)`` bias.

        Raises:
            ValueError: if the weights do not fit the clock.

        Example:
            >>> import clockwork as cw, jax
            >>> clock = cw.Clock(periods=(1, 2, 4), sizes=(4, 4, 3))
            >>> w_in, w_rec, bias = cw.init(jax.random.key(0), clock, inputs=2).dense(clock)
            >>> w_rec.shape, bool(w_rec[:4, 4:].any())  # the fastest module sends to no other
            ((11, 11), False)
        """
        check_weights(self, clock)
        columns = clock.width
        rows = [jnp.pad(block, ((0, 0), (0, columns - block.shape[1]))) for block in self.recurrent]
        return self.input, jnp.concatenate(rows), self.bias

    @classmethod
    def from_dense(cls, clock: Clock, input: ArrayLike, recurrent: ArrayLike, bias: ArrayLike) -> "Weights":
        """The inverse of `dense`.

        Args:
            clock: the layer's clock.
            input: ``(I, N)``.
            recurrent: ``(N, N)``, zero wherever a faster module would send to a slower one.
                Traced entries, as under ``jit``, are not checked.
            bias: ``(N,)``.

        Returns:
            The weights in sender blocks, each array in its own dtype.

        Raises:
            ValueError: if a shape is wrong, an array is not floating point, or an entry
                outside the triangle is not zero.
        """
        input, recurrent, bias = jnp.asarray(input), jnp.asarray(recurrent), jnp.asarray(bias)
        n = check_clock(clock, "Weights.from_dense(clock, input, recurrent, bias)").width
        shaped("input weights", input, "I N", N=n, kind=float)
        shaped("recurrent weights", recurrent, "N N", N=n, kind=float)
        shaped("bias", bias, "N", N=n, kind=float)
        ends = [a + k for a, k in zip(clock.starts, clock.sizes, strict=True)]
        try:
            outside = np.array(recurrent)
        except jax.errors.TracerArrayConversionError:
            outside = np.zeros((n, n))
        for a, b in zip(clock.starts, ends, strict=True):
            outside[a:b, :b] = 0
        if outside.any():
            row, column = np.argwhere(outside)[0].tolist()
            raise ValueError(
                "recurrent weights from a faster to a slower module must be zero, "
                f"got {outside[row, column]} from unit {row} to unit {column}"
            )
        blocks = tuple(recurrent[a:b, :b] for a, b in zip(clock.starts, ends, strict=True))
        return cls(input, blocks, bias)

    def flat(self, prefix: str = "", clock: Clock | None = None) -> dict[str, Array]:
        """The same weights as a flat dictionary of arrays, for safetensors and other formats.

        The names are those of the parameters in `clockwork.nn` and, with ``_`` for the last ``.``, in
        `clockwork.nn.linen`. `clockwork.nn.flat` does the same for layers and networks. The values are JAX arrays, as
        ``safetensors.flax`` expects.

        Args:
            prefix: put before every name, such as ``"encoder."``.
            clock: the layer's clock, to store it too; None to leave it out.

        Returns:
            ``input``, ``recurrent.0`` to ``recurrent.{G - 1}`` (fastest first) and ``bias``; with a clock also
            ``clock``, see `Clock.flat`.

        Example:
            >>> import clockwork as cw, jax
            >>> weights = cw.init(jax.random.key(0), cw.Clock(periods=(1, 2), sizes=(4, 3)), inputs=2)
            >>> sorted(weights.flat("encoder."))
            ['encoder.bias', 'encoder.input', 'encoder.recurrent.0', 'encoder.recurrent.1']
        """
        blocks = {f"{prefix}recurrent.{j}": block for j, block in enumerate(self.recurrent)}
        stored = {} if clock is None else {name: jnp.asarray(array) for name, array in clock.flat(prefix).items()}
        return {**stored, f"{prefix}input": self.input, **blocks, f"{prefix}bias": self.bias}

    @classmethod
    def from_flat(cls, clock: Clock, arrays: Mapping[str, ArrayLike], prefix: str = "") -> "Weights":
        """The inverse of `flat`.

        Args:
            clock: the layer's clock, such as ``Clock.from_flat(arrays, prefix)`` if it is stored.
            arrays: the arrays by name; those whose name does not begin with the prefix are ignored. A layer without
                inputs needs no ``input``.
            prefix: the prefix given to `flat`.

        Returns:
            The weights, each array in its own dtype.

        Raises:
            ValueError: if a name is missing or unknown, the weights do not fit the clock, or a different clock is
                stored with them.
        """
        check_clock(clock, "Weights.from_flat(clock, arrays)")
        wanted = [f"{prefix}input", *(f"{prefix}recurrent.{j}" for j in range(clock.modules)), f"{prefix}bias"]
        given = {name for name in arrays if name.startswith(prefix)}
        if given - {f"{prefix}clock"} not in (set(wanted), set(wanted[1:])):
            raise ValueError(f"weights of {clock} must be named {wanted}, got {sorted(given)}")
        if f"{prefix}clock" in given and (stored := Clock.from_flat(arrays, prefix)) != clock:
            raise ValueError(f"the weights must be those of {clock}, got those of {stored}")
        *blocks, bias = (jnp.asarray(arrays[name]) for name in wanted[1:])
        first = arrays[wanted[0]] if wanted[0] in given else no_inputs(bias)
        weights = cls(jnp.asarray(first), tuple(blocks), bias)
        check_weights(weights, clock)
        return weights

    @classmethod
    def from_torch(
        cls, arrays: Mapping[str, Any], *, layer: int = 0, reverse: bool = False, prefix: str = ""
    ) -> "Weights":
        """Convert the weights of a layer of PyTorch's ``nn.RNN``, a clockwork layer with one module of period 1.

        Args:
            arrays: the ``state_dict()``; its values are NumPy arrays or CPU tensors.
            layer: the index of the layer.
            reverse: whether to take the weights of the backward direction.
            prefix: the prefix of every name, such as ``"encoder."``.

        Returns:
            The weights for ``Clock(periods=(1,), sizes=(N,))``. The bias is the sum of PyTorch's two biases. For
            ``nn.RNN(nonlinearity="relu")``, use the activation ``jax.nn.relu``.

        Raises:
            ValueError: if the layer's arrays are missing, or they belong to an LSTM or a GRU.

        Example:
            >>> import clockwork as cw
            >>> state = {"weight_ih_l0": np.ones((5, 3), np.float32), "weight_hh_l0": np.ones((5, 5), np.float32)}
            >>> weights, clock = cw.Weights.from_torch(state), cw.Clock(periods=(1,), sizes=(5,))
            >>> outputs, hidden = cw.unroll(weights, clock, jnp.ones((9, 3)))
            >>> outputs.shape
            (9, 5)
        """
        input, recurrent, bias = torch_arrays(arrays, "RNN", 1, layer, reverse, prefix)
        return cls(input, (recurrent,), bias)


jax.export.register_namedtuple_serialization(Weights, serialized_name="clockwork.Weights")


def init(key: Array, clock: Clock, inputs: int = 0, stddev: float = 0.1, dtype: DTypeLike = jnp.float32) -> Weights:
    """Draw all weights and biases from N(0, stddev²) (Koutník et al. 2014, sec. 4).

    The cells, layers and networks of `clockwork.nn` draw weights in the same way: the same key gives the same weights.

    Args:
        key: a JAX random key.
        clock: the layer's clock.
        inputs: ``I``, the number of inputs; 0 for none.
        stddev: the standard deviation.
        dtype: the floating-point dtype of the weights. They are drawn in at least float32 and rounded.

    Returns:
        The weights of a layer with this clock.

    Raises:
        ValueError: if ``clock`` is not a clock, ``inputs`` is not an integer of at least 0, ``stddev`` is negative or
            not finite, or ``dtype`` is not floating point.

    Example:
        >>> import clockwork as cw, jax
        >>> weights = cw.init(jax.random.key(0), cw.Clock.exponential(width=40, modules=9), inputs=13)
        >>> weights.input.shape, weights.bias.shape
        ((13, 40), (40,))
    """
    check_clock(clock, "init(key, clock, inputs)")
    normal = Normal(finite("stddev", stddev, least=0))
    return initialize(key, clock, integer("inputs", inputs, least=0), normal, normal, normal, dtype)


def initialize(
    key: Array,
    clock: Clock,
    inputs: int,
    kernel_init: Initializer | None = None,
    recurrent_kernel_init: Initializer | None = None,
    bias_init: Initializer | None = None,
    dtype: DTypeLike = jnp.float32,
) -> Weights:
    """Draw the weights of a layer with any initialisers; each defaults to the paper's, `Normal`.

    Args:
        key: a JAX random key, split into three: for the input weights, the recurrent weights and the biases.
        clock: the layer's clock.
        inputs: ``I``, the number of inputs; 0 for none.
        kernel_init: draws the input weights ``(I, N)``.
        recurrent_kernel_init: draws all weights to module i, ``(N - a_i, k_i)``, with a separate key for each i, so
            that initialisers that scale by the fan-in see the right one. A `Normal` draws all modules at once, as one
            ``(N, N)`` matrix whose upper triangle is dropped.
        bias_init: draws the biases ``(N,)``.
        dtype: the floating-point dtype of the weights. They are drawn in at least float32 and rounded.

    Raises:
        ValueError: if ``dtype`` is not floating point.

    Example:
        >>> import clockwork as cw, jax
        >>> from clockwork.nn import FLAX
        >>> weights = initialize(jax.random.key(0), cw.Clock.exponential(width=40, modules=9), 13, **FLAX)
        >>> float(abs(weights.bias).sum())
        0.0
    """
    kernel, recurrent, bias = kernel_init or Normal(), recurrent_kernel_init or Normal(), bias_init or Normal()
    input_key, recurrent_key, bias_key = jax.random.split(key, 3)
    n, parts = clock.width, list(zip(clock.starts, clock.sizes, strict=True))
    if isinstance(recurrent, Normal):  # one draw instead of G, since each shape is compiled separately
        square = draw(recurrent, recurrent_key, (n, n), dtype)
        blocks = [square[a : a + k, : a + k] for a, k in parts]
    else:
        keys = jax.random.split(recurrent_key, clock.modules)
        received = [draw(recurrent, k_i, (n - a, k), dtype) for k_i, (a, k) in zip(keys, parts, strict=True)]
        blocks = [
            jnp.concatenate([received[i][b - a : b - a + k] for i, (a, _) in enumerate(parts[: j + 1])], axis=1)
            for j, (b, k) in enumerate(parts)
        ]
    return Weights(
        draw(kernel, input_key, (inputs, n), dtype) if inputs else jnp.zeros((0, n), dtype),
        tuple(blocks),
        draw(bias, bias_key, (n,), dtype),
    )


class Normal(NamedTuple):
    """An initialiser that draws from N(0, stddev²), with the signature of those in ``jax.nn.initializers``.

    Attributes:
        stddev: the standard deviation; the paper's by default (Koutník et al. 2014, sec. 4).
    """

    stddev: float = 0.1

    def __call__(self, key: Array, shape: Sequence[Any], dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
        """Draw an array of this shape and dtype."""
        return self.stddev * jax.random.normal(key, shape, dtype, out_sharding=out_sharding)


def draw(initializer: Initializer, key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Call an initialiser in at least float32 and round to ``dtype``, which must be floating point."""
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ArgumentError("dtype", f"must be a type of floating point numbers, got {jnp.dtype(dtype)}")
    at_least_float32 = dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32
    return initializer(key, shape, at_least_float32).astype(dtype)


def block_shapes(clock: Clock) -> Sequence[tuple[int, int]]:
    """The shapes ``(k_j, a_j + k_j)`` of the sender blocks of a clock."""
    return [(k, a + k) for a, k in zip(clock.starts, clock.sizes, strict=True)]


def no_inputs(bias: Array) -> Array:
    """The input weights ``(0, ...)`` of a layer without inputs."""
    return jnp.zeros((0, *bias.shape), bias.dtype)


def torch_arrays(
    arrays: Mapping[str, Any], kind: str, gates: int, layer: int, reverse: bool, prefix: str
) -> tuple[Array, Array, Array]:
    """The input weights ``(I, gates N)``, recurrent weights ``(N, gates N)`` and biases of a PyTorch layer."""
    end = f"l{layer}_reverse" if reverse else f"l{layer}"
    names = [f"{prefix}weight_ih_{end}", f"{prefix}weight_hh_{end}"]
    if not set(names) <= set(arrays):
        raise ValueError(
            f"the state dict of an nn.{kind} must have {' and '.join(names)}, got {listed(sorted(arrays))}"
        )
    if f"{prefix}weight_hr_{end}" in arrays:
        raise ValueError("an nn.LSTM with proj_size is not supported: these cells have no projection, got weight_hr")
    input, recurrent = (jnp.asarray(np.asarray(arrays[name])).T for name in names)
    n = recurrent.shape[0]
    shaped(f"the transpose of {names[1]}", recurrent, f"N {gates}N", N=n, kind=float)
    shaped(f"the transpose of {names[0]}", input, f"I {gates}N", N=n, kind=float)
    bias = jnp.zeros(gates * n, recurrent.dtype)
    for name in (f"{prefix}bias_ih_{end}", f"{prefix}bias_hh_{end}"):
        if name in arrays:  # absent with bias=False
            bias = bias + shaped(name, jnp.asarray(np.asarray(arrays[name])), f"{gates}N", N=n)
    return input, recurrent, bias


def as_weights(weights: Weights) -> Weights:
    """Return the weights; raise ``ValueError`` if they are not `Weights`."""
    if isinstance(weights, Weights):
        return weights
    hint = "; weights come first, then the clock" if isinstance(weights, Clock) else ""
    raise ArgumentError(
        "weights", f"must be a clockwork.Weights, such as init(key, clock, inputs), got {shown(weights)}{hint}"
    )


def check_weights(weights: Weights, clock: Clock) -> None:
    """Raise ``ValueError`` unless the weights fit the clock."""
    shapes = [tuple(block.shape) for block in as_weights(weights).recurrent]
    check_clock(clock)
    if shapes != block_shapes(clock):
        raise ValueError(f"recurrent weights of {clock} must have shapes {block_shapes(clock)}, got {shapes}")
    shaped("input weights", weights.input, "I N", N=clock.width)
    shaped("bias", weights.bias, "N", N=clock.width)
