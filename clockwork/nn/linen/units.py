"""Multi-layer perceptrons and the units of deep recurrent networks (Pascanu et al. 2013) as Flax (linen) modules."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.nn.initializers import Initializer

from clockwork.checks import finite, integer
from clockwork.deep.units import lp_units
from clockwork.deep.weights import check_mlp_sizes, check_sizes
from clockwork.nn.linen.described import Described
from clockwork.ops.linalg import Activation
from clockwork.weights import Normal


class LpUnits(Described, nn.Module):
    """Units that each take the L_p norm of several affine functions of the input; see `clockwork.nn.LpUnits`.

    Attributes:
        features: ``N``, the number of units.
        pieces: ``P``, the number of affine functions of a unit.
        order: the initial p, more than 1.
        kernel_init: draws the weights; N(0, 0.1²) if None, as for the biases.
        bias_init: draws the biases.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> LpUnits(40).init_with_output(jax.random.key(0), jnp.ones((8, 13)))[0].shape
        (8, 40)
    """

    features: int
    pieces: int = 2
    order: float = 2.0
    kernel_init: Initializer | None = None
    bias_init: Initializer | None = None

    def __post_init__(self) -> None:
        finite("order", self.order, least=1.01)
        integer("features", self.features, least=1)
        integer("pieces", self.pieces, least=1)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map ``(*batch, K)`` to ``(*batch, N)``."""
        pieces = _dense(self.features * self.pieces, self, "linear")(x)
        rho = self.param("rho", lambda key: jnp.full(self.features, jnp.log(jnp.expm1(self.order - 1)), jnp.float32))
        return lp_units(pieces.reshape(*pieces.shape[:-1], self.features, self.pieces), rho)


class Maxout(Described, nn.Module):
    """Units that each take the largest of several affine functions of the input; see `clockwork.nn.Maxout`.

    Attributes:
        features: ``N``, the number of units.
        pieces: the number of affine functions of a unit.
        kernel_init: draws the weights; N(0, 0.1²) if None, as for the biases.
        bias_init: draws the biases.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> Maxout(40, pieces=3).init_with_output(jax.random.key(0), jnp.ones((8, 13)))[0].shape
        (8, 40)
    """

    features: int
    pieces: int = 2
    kernel_init: Initializer | None = None
    bias_init: Initializer | None = None

    def __post_init__(self) -> None:
        integer("features", self.features, least=1)
        integer("pieces", self.pieces, least=1)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map ``(*batch, K)`` to ``(*batch, N)``."""
        pieces = _dense(self.features * self.pieces, self, "linear")(x)
        return pieces.reshape(*pieces.shape[:-1], self.features, self.pieces).max(-1)


class MLP(Described, nn.Module):
    """A multi-layer perceptron with a linear last layer; see `clockwork.nn.MLP`, which also has dropout.

    Attributes:
        sizes: the number of units of each layer; the last is the number of outputs.
        activation: elementwise; ``jnp.tanh`` if None.
        unit: a class or function that makes each layer but the last, called as ``unit(features)``, such as `Maxout`;
            None for affine layers with the activation.
        kernel_init: draws the weights; N(0, 0.1²) if None, as for the biases.
        bias_init: draws the biases.

    Raises:
        ValueError: if there is no layer, or a size is out of range.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> MLP((400, 88)).init_with_output(jax.random.key(0), jnp.ones((8, 50, 400)))[0].shape
        (8, 50, 88)
    """

    sizes: Sequence[int]
    activation: Activation | None = None
    unit: Callable[..., Any] | None = None
    kernel_init: Initializer | None = None
    bias_init: Initializer | None = None

    def __post_init__(self) -> None:
        check_mlp_sizes(self.sizes)
        super().__post_init__()

    def setup(self) -> None:
        """The layers."""
        *inner, outputs = self.sizes
        self.inner = [_dense(size, self, None) if self.unit is None else self.unit(size) for size in inner]
        self.last = _dense(outputs, self, None)

    def __call__(self, x: Array) -> Array:
        """Map ``(*batch, K)`` to ``(*batch, O)``."""
        for layer in self.inner:
            x = layer(x)
            x = (self.activation or jnp.tanh)(x) if isinstance(layer, nn.Dense) else x
        return self.last(x)


class Transition(Described, nn.Module):
    """A deep transition ``h' = h ⊕ x`` of any units, for `Operators`; see `clockwork.nn.Transition`.

    Attributes:
        features: ``N``, the number of hidden units.
        middle: the number of units of each layer between two hidden states.
        unit: a class or function that makes each layer but the last, called as ``unit(features)``; None for affine
            layers with the activation.
        shortcuts: whether every layer receives the previous hidden state and the input.
        activation: elementwise; ``jnp.tanh`` if None.
        kernel_init: draws each matrix; N(0, 0.1²) if None, as for the biases.
        bias_init: draws the biases.

    Raises:
        ValueError: if a number of units is out of range.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> plus = Transition(40, middle=(30,), unit=LpUnits)
        >>> plus.init_with_output(jax.random.key(0), jnp.zeros((8, 40)), jnp.ones((8, 13)))[0].shape
        (8, 40)
    """

    features: int
    middle: Sequence[int] = ()
    unit: Callable[..., Any] | None = None
    shortcuts: bool = True
    activation: Activation | None = None
    kernel_init: Initializer | None = None
    bias_init: Initializer | None = None

    def __post_init__(self) -> None:
        check_sizes(self.features, self.middle)
        super().__post_init__()

    def setup(self) -> None:
        """The layers."""
        inner = [_dense(size, self, None) if self.unit is None else self.unit(size) for size in self.middle]
        self.layers = [*inner, _dense(self.features, self, None)]

    def __call__(self, h: Array, x: Array) -> Array:
        """Map ``h (*batch, N)`` and ``x (*batch, I)`` to the next hidden state ``(*batch, N)``."""
        given = z = jnp.concatenate([h, x], -1)
        for k, layer in enumerate(self.layers):
            z = layer(jnp.concatenate([z, given], -1) if k and self.shortcuts else z)
            z = (self.activation or jnp.tanh)(z) if isinstance(layer, nn.Dense) else z
        return z


def _dense(features: int, module: Any, name: str | None) -> nn.Dense:
    return nn.Dense(
        features, kernel_init=module.kernel_init or Normal(), bias_init=module.bias_init or Normal(), name=name
    )
