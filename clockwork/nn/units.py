"""Multi-layer perceptrons and the units of deep recurrent networks (Pascanu et al. 2013) as Flax (nnx) modules."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.nn.initializers import Initializer

from clockwork.checks import finite, integer, shaped
from clockwork.deep.units import lp_units
from clockwork.deep.weights import check_mlp_sizes, check_sizes
from clockwork.nn.described import Described, unless_default
from clockwork.nn.named import Named
from clockwork.ops.linalg import Activation
from clockwork.weights import Normal


class LpUnits(Described, nnx.Module):
    """Units that each take the L_p norm of several affine functions of the input, with a learned order p.

    ``u_j = (1/P Σ_i |a_{ji} - c_{ji}|^p_j)^(1/p_j)``, ``p_j = 1 + log(1 + exp ρ_j)``, ``a = W x`` (Gulcehre et al.
    2013; the transition of the starred model of Pascanu et al. 2013).

    Args:
        in_features: ``K``.
        features: ``N``, the number of units.
        pieces: ``P``, the number of affine functions of a unit.
        order: the initial p, at least 1.01.
        kernel_init: draws ``W (K, N P)``; N(0, 0.1²) if None, as for ``c``.
        bias_init: draws ``c (N P,)``.
        rngs: the source of the random keys (stream ``params``).

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> LpUnits(13, 40, rngs=nnx.Rngs(0))(jnp.ones((8, 13))).shape
        (8, 40)
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        pieces: int = 2,
        order: float = 2.0,
        kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.features, self.pieces = integer("features", features, least=1), integer("pieces", pieces, least=1)
        order = finite("order", order, least=1.01)
        self.linear = _linear(in_features, self.features * self.pieces, kernel_init, bias_init, rngs)
        self.rho = nnx.Param(jnp.full(self.features, jnp.log(jnp.expm1(order - 1)), jnp.float32))

    def _arguments(self) -> dict[str, Any]:
        given = {"in_features": self.linear.in_features, "features": self.features, "pieces": self.pieces}
        return unless_default(given, pieces=2)

    def __call__(self, x: Array) -> Array:
        """Map ``(*batch, K)`` to ``(*batch, N)``."""
        pieces = self.linear(x)
        return lp_units(pieces.reshape(*pieces.shape[:-1], self.features, self.pieces), self.rho[...])


class Maxout(Described, nnx.Module):
    """Units that each take the largest of several affine functions of the input (Goodfellow et al. 2013).

    ``u_j = max_i (W x + b)_{ji}``.

    Args:
        in_features: ``K``.
        features: ``N``, the number of units.
        pieces: the number of affine functions of a unit.
        kernel_init: draws ``W``; N(0, 0.1²) if None, as for ``b``.
        bias_init: draws ``b``.
        rngs: the source of the random keys (stream ``params``).

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> Maxout(13, 40, pieces=3, rngs=nnx.Rngs(0))(jnp.ones((8, 13))).shape
        (8, 40)
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        pieces: int = 2,
        kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.features, self.pieces = integer("features", features, least=1), integer("pieces", pieces, least=1)
        self.linear = _linear(in_features, self.features * self.pieces, kernel_init, bias_init, rngs)

    def _arguments(self) -> dict[str, Any]:
        given = {"in_features": self.linear.in_features, "features": self.features, "pieces": self.pieces}
        return unless_default(given, pieces=2)

    def __call__(self, x: Array) -> Array:
        """Map ``(*batch, K)`` to ``(*batch, N)``."""
        pieces = self.linear(x)
        return pieces.reshape(*pieces.shape[:-1], self.features, self.pieces).max(-1)


class MLP(Described, nnx.Module):
    """A multi-layer perceptron: ``y = V_L f(... f(V_1 x + b_1) ...) + b_L``, with a linear last layer.

    As ``predict`` of `DeepTransition` it gives a deep output: DO-RNN or DOT-RNN in Pascanu et al. (2013).

    Args:
        in_features: ``K``.
        sizes: the number of units of each layer; the last is the number of outputs.
        activation: ``f``, elementwise; ``jnp.tanh`` if None.
        unit: a class or function that makes each layer but the last, called as
            ``unit(in_features, features, rngs=rngs)``, such as `Maxout`; None for affine layers with the activation.
        dropout: the probability with which each output of a layer but the last is dropped in training.
        kernel_init: draws each ``V``; N(0, 0.1²) if None, as for ``b``.
        bias_init: draws each ``b``.
        rngs: the source of the random keys (streams ``params`` and ``dropout``).

    Raises:
        ValueError: if there is no layer, a size is out of range, or the activation is not a function.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> MLP(400, (400, 88), rngs=nnx.Rngs(0))(jnp.ones((8, 50, 400))).shape
        (8, 50, 88)
    """

    def __init__(
        self,
        in_features: int,
        sizes: Sequence[int],
        *,
        activation: Activation | None = None,
        unit: Callable[..., Any] | None = None,
        dropout: float = 0.0,
        kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        *inner, outputs = check_mlp_sizes(sizes)
        self.in_features = integer("in_features", in_features, least=1)
        given = [self.in_features, *inner]
        self.sizes = (*inner, outputs)
        self._activation = Named(activation or jnp.tanh)
        layers = zip(given, inner, strict=False)  # each receives the one below
        self.inner = nnx.List(
            [
                _linear(below, above, kernel_init, bias_init, rngs) if unit is None else unit(below, above, rngs=rngs)
                for below, above in layers
            ]
        )
        self.last = _linear(given[-1], outputs, kernel_init, bias_init, rngs)
        dropout = finite("dropout", dropout, least=0)
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout else None

    def _arguments(self) -> dict[str, Any]:
        given = {"in_features": self.in_features, "sizes": self.sizes, "activation": self._activation.function}
        return unless_default(given, activation=jnp.tanh)

    def __call__(self, x: Array) -> Array:
        """Map ``(*batch, K)`` to ``(*batch, O)``."""
        for layer in self.inner:
            x = layer(x)
            x = self._activation.function(x) if isinstance(layer, nnx.Linear) else x
            x = x if self.dropout is None else self.dropout(x)
        return self.last(x)


class Transition(Described, nnx.Module):
    """A deep transition ``h' = h ⊕ x`` of any units, for `Operators` (Pascanu et al. 2013, sec. 3.3.2).

    ``z_1 = g_1([h, x])``, ``z_k = g_k([z_{k-1}, h, x])``, ``h' = f(W [z_{L-1}, h, x] + b)``; without shortcuts,
    ``z_k = g_k(z_{k-1})`` and ``h' = f(W z_{L-1} + b)``. With affine layers and tanh for every g it is the transition
    of `DeepTransition`, which is faster. With `LpUnits` it is the transition of the paper's starred model.

    Args:
        in_features: ``I``, the number of inputs.
        hidden_features: ``N``, the number of hidden units.
        middle: the number of units of each layer between two hidden states.
        unit: a class or function that makes ``g_k``, called as ``unit(in_features, features, rngs=rngs)``; None for
            affine layers with ``f``.
        shortcuts: whether every layer receives the previous hidden state and the input.
        activation: ``f``, elementwise; ``jnp.tanh`` if None.
        dropout: the probability with which each ``z`` is dropped in training.
        kernel_init: draws each matrix; N(0, 0.1²) if None, as for the biases.
        bias_init: draws the biases.
        rngs: the source of the random keys (streams ``params`` and ``dropout``).

    Raises:
        ValueError: if a number is out of range, or the activation is not a function.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> plus = Transition(13, 40, middle=(30,), unit=LpUnits, rngs=nnx.Rngs(0))
        >>> plus(jnp.zeros((8, 40)), jnp.ones((8, 13))).shape
        (8, 40)
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        middle: Sequence[int] = (),
        *,
        unit: Callable[..., Any] | None = None,
        shortcuts: bool = True,
        activation: Activation | None = None,
        dropout: float = 0.0,
        kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        *sizes, hidden = check_sizes(hidden_features, middle)
        self.in_features, self.hidden_features = integer("in_features", in_features, least=0), hidden
        self.middle, self.shortcuts = tuple(sizes), shortcuts
        self._activation = Named(activation or jnp.tanh)
        around, below = hidden + in_features, 0
        layers: list[Any] = []
        for k, size in enumerate((*sizes, hidden)):
            width = below + (around if shortcuts or not k else 0)
            if unit is None or k == len(sizes):
                layers.append(_linear(width, size, kernel_init, bias_init, rngs))
            else:
                layers.append(unit(width, size, rngs=rngs))
            below = size
        self.layers = nnx.List(layers)
        dropout = finite("dropout", dropout, least=0)
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout else None

    def _arguments(self) -> dict[str, Any]:
        names = ("in_features", "hidden_features", "middle", "shortcuts")
        return unless_default({name: getattr(self, name) for name in names}, middle=(), shortcuts=True)

    def __call__(self, h: Array, x: Array) -> Array:
        """Map ``h (*batch, N)`` and ``x (*batch, I)`` to the next hidden state ``(*batch, N)``."""
        shaped("inputs", x, "*batch I", I=self.in_features)
        given = z = jnp.concatenate([h, x], -1)
        for k, layer in enumerate(self.layers):
            if k:
                z = z if self.dropout is None else self.dropout(z)
                z = jnp.concatenate([z, given], -1) if self.shortcuts else z
            z = layer(z)
            z = self._activation.function(z) if isinstance(layer, nnx.Linear) else z
        return z


def _linear(
    in_features: int, features: int, kernel_init: Initializer | None, bias_init: Initializer | None, rngs: nnx.Rngs
) -> nnx.Linear:
    return nnx.Linear(
        in_features, features, kernel_init=kernel_init or Normal(), bias_init=bias_init or Normal(), rngs=rngs
    )
