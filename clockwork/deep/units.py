"""Units that take the L_p norm of their inputs, with a learned order p."""

import jax
import jax.numpy as jnp
from jax import Array


def lp_units(pieces: Array, rho: Array) -> Array:
    """The normalised L_p norm of several numbers for each unit (Gulcehre et al. 2013).

    ``u_j = (1/P Σ_i |d_{ji}|^p_j)^(1/p_j)``, ``p_j = 1 + log(1 + exp ρ_j)``. It is evaluated relative to the largest
    of a unit's numbers, so that it neither overflows nor underflows, and its gradient is finite everywhere: zero where
    all numbers of a unit are zero.

    Args:
        pieces: ``d``, ``(*batch, N, P)``.
        rho: ``(N,)``.

    Returns:
        ``u``, ``(*batch, N)``.

    Example:
        >>> import jax.numpy as jnp
        >>> from clockwork.deep import lp_units
        >>> rho = jnp.log(jnp.expm1(jnp.ones(1)))  # p = 2
        >>> round(float(lp_units(jnp.array([[3.0, 4.0]]), rho)[0]), 4)
        3.5355
    """
    order = jnp.broadcast_to(1 + jax.nn.softplus(rho), pieces.shape[:-1])[..., None]
    size = jnp.abs(pieces)
    largest = jax.lax.stop_gradient(size.max(-1, keepdims=True))
    scale = jnp.where(largest > 0, largest, 1)
    share = size / scale
    positive = share > 0
    powers = jnp.where(positive, jnp.exp(order * jnp.log(jnp.where(positive, share, 1))), 0)
    mean = powers.mean(-1, keepdims=True)
    some = mean > 0
    norm = jnp.exp(jnp.log(jnp.where(some, mean, 1)) / order)
    return jnp.where(some, norm * scale, 0)[..., 0]
