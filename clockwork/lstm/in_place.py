"""The recurrence of an LSTM layer in place, run by run; used for layers of more than a few cells.

The whole computation uses one array of rows ``(T, 4, N)``. It starts as the drive of the gates; the forward loop turns
each row into the gates' pre-activations without peepholes, and the backward loop turns these into the errors of the
pre-activations. So little memory is read and written, which is the main cost besides the two matrix products of a step.
No local derivative is stored: each is computed from the pre-activations where it is used.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from clockwork.lstm.weights import LSTMWeights
from clockwork.ops.linalg import accumulator, broadcast_batch, get_row, matmul, set_row


def forward(
    weights: LSTMWeights, drive: Array | None, steps: int, h_0: Array, c_0: Array
) -> tuple[Array, Array, Array]:
    """The recurrence, forwards.

    Args:
        weights: the layer's weights.
        drive: the contribution of the inputs, ``(T, 4 N)``; None for no inputs.
        steps: ``T``.
        h_0: the first hidden values, ``(N,)``.
        c_0: the first cells, ``(N,)``.

    Returns:
        Pre-activations without peepholes ``(T, 4, N)``, and cells and hidden values, before the first step and after
        each, ``(T + 1, N)``.
    """
    dtype, cells = accumulator(h_0.dtype), h_0.shape[-1]
    bias = broadcast_batch(weights.bias.astype(dtype).reshape(4, cells), h_0[..., None, :])
    p_i, p_f, p_o = (broadcast_batch(p, h_0) for p in weights.peepholes.astype(dtype))
    shape = (steps, *h_0.shape[:-1], 4, cells)
    rows = jnp.zeros(shape, dtype) if drive is None else drive.astype(dtype).reshape(shape)

    def tick(s: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        h_tm1, c_tm1, rows, cells, hidden = carry
        sent = matmul(h_tm1, weights.recurrent).reshape(rows.shape[1:])
        rows = set_row(rows, get_row(rows, s) + sent + bias, s)
        # One slice for each gate: XLA would not vectorise a kernel that slices several gates.
        z_i, z_f, z_g, z_o = (_gate(rows, s, k) for k in range(4))
        c = c_tm1.astype(dtype)
        c_t = jax.nn.sigmoid(z_f + p_f * c) * c + jax.nn.sigmoid(z_i + p_i * c) * jnp.tanh(z_g)
        h_t = (jax.nn.sigmoid(z_o + p_o * c_t) * jnp.tanh(c_t)).astype(h_tm1.dtype)
        c_t = c_t.astype(c_tm1.dtype)
        return h_t, c_t, rows, set_row(cells, c_t, s + 1), set_row(hidden, h_t, s + 1)

    start = (h_0, c_0, rows, _after(c_0, steps), _after(h_0, steps))
    return lax.fori_loop(0, steps, tick, start)[2:]


def backward(
    weights: LSTMWeights,
    readout: Array | None,
    rows: Array,
    cells: Array,
    outputs_bar: Array,
    h_bar: Array,
    c_bar: Array,
) -> tuple[Array, Array, Array]:
    """The recurrence, backwards.

    With ``h̄`` the error of ``h_t``, ``c̄`` that of ``c_t``, ``g`` the squashed input, ``i``, ``f``, ``o`` the gates and
    ``s = tanh(c_t)``: ``c̄ += h̄ o (1 - s²) + δ_o p_o``, ``δ_i = c̄ g i (1 - i)``, ``δ_f = c̄ c_{t-1} f (1 - f)``,
    ``δ_g = c̄ i (1 - g²)``, ``δ_o = h̄ s o (1 - o)``; ``c̄ f + δ_i p_i + δ_f p_f`` goes on to ``c_{t-1}``, and
    ``δ W_Rᵀ`` to ``h_{t-1}``.

    Args:
        weights: the layer's weights.
        readout: ``(N, O)``, or None.
        rows: pre-activations without peepholes, ``(T, 4, N)``.
        cells: ``(T + 1, N)``.
        outputs_bar: the errors of the outputs, ``(T, O)``, or ``(T, N)`` without a readout.
        h_bar: the errors of the last hidden values, ``(N,)``.
        c_bar: the errors of the last cells, ``(N,)``.

    Returns:
        ``δ (T, 4, N)``, and the errors of the first hidden values and cells, ``(N,)`` each.
    """
    dtype, steps = rows.dtype, rows.shape[0]
    back = weights.recurrent.T.astype(dtype)
    errors = outputs_bar if readout is None else matmul(outputs_bar, readout.T.astype(dtype))
    row = h_bar[..., None, :]
    peepholes = weights.peepholes.astype(dtype)
    p_i, p_f, p_o = (broadcast_batch(p, h_bar) for p in peepholes)
    by_gate = jnp.stack([peepholes[0], peepholes[1], jnp.zeros_like(peepholes[0]), peepholes[2]])
    by_gate = jnp.broadcast_to(broadcast_batch(by_gate, row), rows.shape[1:])
    # ``σ(z) = 1 / (1 + exp(-z))``, ``tanh(z) = 2 / (1 + exp(-2 z)) - 1``
    scale = broadcast_batch(jnp.asarray([1, 1, 2, 1], dtype)[:, None], row)
    offset = broadcast_batch(jnp.asarray([0, 0, -1, 0], dtype)[:, None], row)
    is_output = jnp.broadcast_to(broadcast_batch(jnp.arange(4)[:, None] == 3, row), rows.shape[1:])

    def tick(r: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        h_bar, c_bar, rows = carry
        s = steps - 1 - r
        c_tm1, c_t = (get_row(cells, s + i).astype(dtype) for i in range(2))
        seen = jnp.where(is_output, c_t[..., None, :], c_tm1[..., None, :])
        z = get_row(rows, s) + by_gate * seen
        gates = scale / (1 + jnp.exp(-scale * z)) + offset
        i, f, g, o = (lax.index_in_dim(gates, k, gates.ndim - 2, keepdims=False) for k in range(4))
        squashed = jnp.tanh(c_t)
        h_bar = h_bar + get_row(errors, s)
        of_o = h_bar * squashed * o * (1 - o)
        c_bar = c_bar + h_bar * o * (1 - jnp.square(squashed)) + of_o * p_o
        of_i, of_f, of_g = c_bar * (g * i * (1 - i)), c_bar * (c_tm1 * f * (1 - f)), c_bar * (i * (1 - jnp.square(g)))
        # One update for each gate: a concatenation is several times slower.
        for k, delta in enumerate((of_i, of_f, of_g, of_o)):
            rows = _set_gate(rows, delta, s, k)
        sent = matmul(get_row(rows, s).reshape(*h_bar.shape[:-1], -1), back)
        return sent, c_bar * f + of_i * p_i + of_f * p_f, rows

    h_bar, c_bar, rows = lax.fori_loop(0, steps, tick, (h_bar, c_bar, rows))
    return rows, h_bar, c_bar


def _after(first: Array, steps: int) -> Array:
    """Rows ``(T + 1, N)`` that begin with a state; the other rows are filled later."""
    return set_row(jnp.zeros((steps + 1, *first.shape), first.dtype), first, jnp.int32(0))


def _gate(rows: Array, s: Array, gate: int) -> Array:
    """The part of row s for one gate."""
    start = (s, *(jnp.zeros_like(s),) * (rows.ndim - 3), jnp.full_like(s, gate), jnp.zeros_like(s))
    sizes = (1, *rows.shape[1:-2], 1, rows.shape[-1])
    return lax.dynamic_slice(rows, start, sizes, allow_negative_indices=False).reshape(*rows.shape[1:-2], -1)


def _set_gate(rows: Array, new: Array, s: Array, gate: int) -> Array:
    """The rows with the part of row s for one gate replaced."""
    start = (s, *(jnp.zeros_like(s),) * (rows.ndim - 3), jnp.full_like(s, gate), jnp.zeros_like(s))
    return lax.dynamic_update_slice(rows, new[None, ..., None, :], start, allow_negative_indices=False)
