"""The public functions of a clockwork layer, over a sequence or step by step, and the choice of the back end."""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike

from clockwork.checks import ArgumentError, shaped, shown, static_integer
from clockwork.clock import Clock, check_clock
from clockwork.ops import backend
from clockwork.ops.backend import choose
from clockwork.ops.chunked import check_steps
from clockwork.ops.linalg import Activation, accumulator, matmul
from clockwork.recurrence import cascade, cuda, masked, native, parallel
from clockwork.recurrence.call import Call
from clockwork.recurrence.masked import masked_step
from clockwork.weights import Weights, check_weights

Method = Literal["auto", "masked", "cascade", "parallel", "native", "fused"]
METHODS: tuple[Method, ...] = get_args(Method)
BACKENDS = (masked.BACKEND, cascade.BACKEND, parallel.BACKEND, native.BACKEND, cuda.BACKEND)


class State(NamedTuple):
    """The state of a clockwork layer between two steps; a pytree.

    Attributes:
        hidden: ``(N,)``, the hidden state.
        time: ``()``, int32, the clock's value at the next step, reduced by whole cycles of the clock to avoid
            overflow. In the carry of a Flax cell it has shape ``(*batch, 1)``, and it is a NumPy array if it is known
            before compilation.

    A state does not store its clock: the state of another clock of the same width has the same shapes and is accepted.
    """

    hidden: Array
    time: Array

    @classmethod
    def initial(cls, clock: Clock, dtype: DTypeLike = jnp.float32) -> "State":
        """The state before the first step: all zeros.

        Args:
            clock: the layer's clock.
            dtype: the dtype of the hidden state.

        Raises:
            ValueError: if ``clock`` is not a clock, or its cycle is longer than an int32 can count.
        """
        check_time(clock)
        return cls(jnp.zeros(clock.width, dtype), jnp.zeros((), jnp.int32))


jax.export.register_namedtuple_serialization(State, serialized_name="clockwork.State")


def step(
    weights: Weights | tuple[Array, Array, Array],
    clock: Clock,
    state: State,
    x_t: ArrayLike | None = None,
    *,
    activation: Activation = jnp.tanh,
) -> tuple[State, Array]:
    """One step of a clockwork layer.

    ``h_t = f(W_H h_{t-1} + W_I x_t + b)`` for the modules whose period divides t; the others
    keep their value (Koutník et al. 2014, eqs. 1 and 4). Use it for streaming, and compile it with ``jax.jit``.

    Args:
        weights: the layer's `Weights`; or ``weights.dense(clock)``, computed once, since building these
            matrices at every step may take longer than the rest of the step.
        clock: the layer's clock.
        state: hidden state ``(N,)`` and time ``()``.
        x_t: ``(I,)``; None for a layer without inputs.
        activation: ``f``, elementwise.

    Returns:
        The next state, and its hidden values ``(N,)``.

    Raises:
        ValueError: if the weights, the state or ``x_t`` has the wrong shape, or if the clock's cycle is longer than the
            dtype of ``time`` can count.

    Example:
        >>> import clockwork as cw, jax, jax.numpy as jnp
        >>> clock = cw.Clock(periods=(1, 2, 4), sizes=(4, 4, 3))
        >>> weights = cw.init(jax.random.key(0), clock, inputs=2)
        >>> state = cw.State.initial(clock)
        >>> state, y_t = cw.step(weights, clock, state, jnp.ones(2))
        >>> y_t.shape, int(state.time)
        ((11,), 1)

        The fastest way to compute one step at a time:

        >>> tick = jax.jit(cw.step)
        >>> dense = weights.dense(clock)
        >>> state, y_t = tick(dense, clock, state, jnp.ones(2))
    """
    check_clock(clock, "step(weights, clock, state, x_t)")
    check_activation(activation)
    if not (hasattr(state, "hidden") and hasattr(state, "time")):
        raise ArgumentError("state", f"must be a clockwork.State, such as State.initial(clock), got {shown(state)}")
    input_weights, recurrent, bias = _dense(weights, clock)
    shaped("recurrent weights", recurrent, "N N", N=clock.width)
    dtype, hidden = _check_hidden(bias, clock, state.hidden)
    drive = bias.astype(accumulator(dtype))
    if x_t is None:
        _check_no_inputs(input_weights)
    else:
        x_t = jnp.asarray(x_t)
        shaped("x_t", x_t, "I", I=input_weights.shape[0])
        drive = drive + matmul(x_t[None].astype(dtype), input_weights.astype(dtype))[0]
    time = as_time(clock, state.time)
    check_time(clock, time.dtype)
    active = time % jnp.asarray(clock.unit_periods, time.dtype) == 0
    h_t = masked_step(activation, active, drive, recurrent.astype(dtype), hidden)
    return State(h_t, advance(clock, time, 1)), h_t


def check_time(clock: Clock, dtype: DTypeLike = jnp.int32) -> None:
    """Raise ``ValueError`` unless this is an integer dtype that can count the steps of the clock's cycle."""
    if not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(f"the time of a state or carry must be integers, got {np.dtype(dtype).name}")
    if check_clock(clock).cycle > np.iinfo(dtype).max:
        raise ValueError(
            f"this clock repeats after {clock.cycle} steps, more than the time of a state or carry, "
            f"{np.dtype(dtype).name}, can count; use unroll, or a layer without initial_carry"
        )


def as_time(clock: Clock, time: ArrayLike) -> Array:
    """The time of a state or carry as a JAX array, reduced by whole cycles if it is too large for JAX's dtype."""
    if not isinstance(time, Array):
        time = np.asarray(time)
        dtype = jax.dtypes.canonicalize_dtype(time.dtype)
        if time.size and time.max() > np.iinfo(dtype).max:
            time = (time.astype(object) % clock.cycle).astype(dtype)
    return jnp.asarray(time)


def advance(clock: Clock, time: Any, steps: int | Array) -> Any:
    """The clock's value some steps later, reduced by whole cycles to avoid overflow.

    Args:
        clock: the layer's clock.
        time: integers, as a JAX or NumPy array; the result has the same type.
        steps: the number of steps.
    """
    limit = int(np.iinfo(time.dtype).max) // clock.cycle * clock.cycle
    if not limit:  # the cycle exceeds this dtype: from zero only, since `check_time` refuses to continue
        return time + (steps if isinstance(steps, int) else steps.astype(time.dtype))
    dtype, more = time.dtype, steps
    if isinstance(more, int):
        more = np.asarray(more % limit, dtype)
    elif limit <= np.iinfo(more.dtype).max:
        more = more % np.asarray(limit, more.dtype)
    more = more.astype(dtype)
    left = np.asarray(limit, dtype) - more
    where = np.where if isinstance(time, np.ndarray) else jnp.where
    return where(time >= left, time - left, time + more)


def unroll(
    weights: Weights,
    clock: Clock,
    inputs: ArrayLike | None = None,
    *,
    steps: int | None = None,
    start: int | Array = 0,
    hidden: ArrayLike | None = None,
    readout: ArrayLike | None = None,
    method: Method = "auto",
    activation: Activation = jnp.tanh,
) -> tuple[Array, Array]:
    """Run a clockwork layer over a sequence.

    ``h_t = f(W_H h_{t-1} + W_I x_t + b)`` for the modules whose period divides t; the others
    keep their value (Koutník et al. 2014, eqs. 1 to 4). All methods compute the same function.

    The function is unbatched, pure and differentiable: use ``jax.vmap`` for batches and runs, and ``jax.jit`` for
    compilation. A ``vmap`` over weights puts the runs of small layers side by side in the last axis, for SIMD
    arithmetic; any other ``vmap`` turns every product into one over the whole batch. The gradient is written by hand,
    except for the masked scan; forward mode works too, but second derivatives need ``method="masked"``.

    On a mesh with explicit axes (`jax.set_mesh`), batch and runs may be sharded over devices: each device evaluates its
    own shard, and outputs and gradients are sharded like the arrays they belong to. No other axis may be sharded.

    A long sequence is evaluated in chunks: only the states between chunks are kept for the backward pass, which
    computes each chunk again. A chunk has the smallest multiple of ``clock.cycle`` that is at least 512 steps (4,096
    for ``"native"`` and ``"fused"``; ``"parallel"`` keeps all), and a sequence of fewer than two chunks is evaluated
    whole. To save more memory, cut the sequence into chunks of a multiple of ``clock.cycle`` steps, and scan over them
    with ``jax.checkpoint``.

    A slow module never reads a faster one, but products include the zeros between them: in the masked scan between
    all modules, in the other methods between neighbours that are evaluated as one group. So NaN or infinity in a fast
    module, or in an input that only fast modules read, reaches slower modules at their next tick, and all gradients.

    Args:
        weights: the layer's `Weights`. The dtype of the computation is the promoted dtype of weights,
            ``inputs`` and ``hidden``; sums are taken in at least float32.
        clock: the layer's clock.
        inputs: ``(T, I)``; None for a layer without inputs, which takes ``steps`` instead.
        steps: ``T``, for layers without inputs; static.
        start: the clock's value at the first step, so that a sequence can be cut anywhere and
            continued. It is static, of any size, or a traced integer ``()`` of any dtype, which takes the masked scan.
            The clock repeats itself: any multiple of ``clock.cycle`` is equivalent to 0.
        hidden: ``(N,)``, the state before the first step; zeros if None.
        readout: ``(N, O)``: return ``h @ readout`` in place of the hidden values. The cascade
            multiplies each module's values once, when they change, and builds no ``(T, N)`` array.
        method: ``"masked"``, the reference: a dense product at every step; ``"cascade"``: each
            module is computed at its own ticks only; ``"native"``: the cascade as one compiled loop, on CPUs with a
            C++ compiler (the plain cascade elsewhere, and in `jax.export`), for tanh, float32 or float64; ``"fused"``:
            the cascade with each time loop as one kernel, on NVIDIA GPUs from Hopper on (the plain cascade elsewhere),
            for tanh, float32 or bfloat16, and modules of up to 128 units; it can be sharded only over explicit axes or
            by `jax.shard_map`, and exported only for one platform at a time; ``"parallel"``: the cascade in parallel
            along time, for few, long sequences, float32 or float64, to a few roundings of the largest value, and never
            chosen unasked; see `clockwork.recurrence.parallel`;
            ``"auto"``: the method that is expected to be fastest.
        activation: ``f``, elementwise; static, so pass the same function object each time to avoid recompilation.

    Returns:
        Outputs ``(T, N)``, or ``(T, O)`` with a readout, and the last hidden state ``(N,)``.

    Raises:
        ValueError: if ``weights`` or ``clock`` has the wrong type, both or neither of ``inputs`` and ``steps`` are
            given, a shape does not fit, there is no step, ``start`` is negative, the activation is not a function, the
            method is unknown, the method does not support this layer, or ``start`` is traced and the method is neither
            ``"auto"`` nor ``"masked"``.

    Example:
        >>> import clockwork as cw, jax, jax.numpy as jnp
        >>> clock = cw.Clock.exponential(width=40, modules=9)
        >>> weights = cw.init(jax.random.key(0), clock)
        >>> outputs, hidden = cw.unroll(weights, clock, steps=320)
        >>> outputs.shape
        (320, 40)
        >>> first, hidden = cw.unroll(weights, clock, steps=100)
        >>> rest, hidden = cw.unroll(weights, clock, steps=220, start=100, hidden=hidden)
        >>> bool(jnp.allclose(outputs, jnp.concatenate([first, rest]), atol=1e-6))
        True
    """
    check_weights(weights, clock)
    check_activation(activation)
    if (inputs is None) == (steps is None):
        raise ValueError(f"give either inputs or steps, got {'neither' if inputs is None else 'both'}")
    if inputs is None:
        _check_no_inputs(weights.input)
    else:
        inputs = jnp.asarray(inputs)
        shaped("inputs", inputs, "T I", I=weights.input.shape[0], hint="; batch with jax.vmap")
        steps = inputs.shape[0]
    steps = check_steps(steps)
    start = _check_start(start)
    dtype, hidden = _check_hidden(weights.bias, clock, hidden, inputs)
    if inputs is not None:
        inputs = inputs.astype(dtype)
    if readout is not None:
        readout = jnp.asarray(readout)
        shaped("readout", readout, "N O", N=clock.width)
        readout = readout.astype(dtype)
    call = Call(clock, start, steps, activation, dtype)
    return choose(BACKENDS, call, method).backend.evaluate(call, weights, inputs, hidden, readout)


def explain(
    clock: Clock,
    steps: int,
    dtype: DTypeLike = jnp.float32,
    method: Method = "auto",
    *,
    activation: Activation = jnp.tanh,
) -> list[tuple[str, str]]:
    """Explain which back end evaluates a clockwork layer on this machine, and why.

    Args:
        clock: the layer's clock.
        steps: ``T``.
        dtype: the dtype of the computation.
        method: as in `unroll`.
        activation: ``f``, elementwise.

    Returns:
        The name of each back end and the reason for or against it; the chosen one comes first.

    Raises:
        ValueError: if the method is unknown, or does not support this layer.

    Example:
        >>> import clockwork as cw
        >>> from clockwork.recurrence import explain
        >>> explain(cw.Clock.exponential(width=40, modules=9), steps=2)[0]
        ('masked', 'chosen: 40 units times 2 steps is less than 800, so this is expected to be faster')
    """
    call = Call(check_clock(clock), 0, check_steps(steps), activation, jnp.dtype(dtype))
    return backend.explain(BACKENDS, call, method)


def check_activation(activation: Activation) -> Activation:
    """Return the activation; raise ``ValueError`` if it is not a function."""
    if not callable(activation):
        raise ValueError(f"activation must be a function such as jnp.tanh, got {activation!r}")
    return activation


def _dense(weights: Any, clock: Clock) -> tuple[Array, Array, Array]:
    if isinstance(weights, Weights):
        return weights.dense(clock)
    if not (isinstance(weights, tuple) and len(weights) == 3):
        raise ArgumentError("weights", f"must be a clockwork.Weights or its dense(clock), got {shown(weights)}")
    return weights


def _check_hidden(
    bias: Array, clock: Clock, hidden: ArrayLike | None, inputs: Array | None = None
) -> tuple[DTypeLike, Array]:
    given = [x for x in (inputs, hidden) if x is not None]
    dtype = jnp.result_type(bias, *given)
    if hidden is None:
        return dtype, jnp.zeros(clock.width, dtype)
    hidden = jnp.asarray(hidden)
    shaped("hidden", hidden, "N", N=clock.width)
    return dtype, hidden.astype(dtype)


def _check_no_inputs(input_weights: Array) -> None:
    if input_weights.shape[0]:
        raise ValueError(f"weights are those of a layer with {input_weights.shape[0]} inputs, got none")


def _check_start(start: int | Array) -> int | Array:
    if isinstance(start, Tracer):
        if start.shape or not jnp.issubdtype(start.dtype, jnp.integer):
            raise ValueError(f"start must be one integer, got {start.dtype} of shape {start.shape}")
        return start
    return static_integer("start", start, least=0)
