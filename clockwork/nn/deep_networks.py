"""Networks of Pascanu et al. (2013) as Flax (nnx) modules: recurrent layers with a prediction at every step.

Unlike the networks of Koutník et al. in `clockwork.nn.networks`, they take batches and an initial carry.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike

from clockwork.checks import integer
from clockwork.nn.construction import check_layers
from clockwork.nn.deep import DeepTransition
from clockwork.nn.described import Described, unless_default
from clockwork.nn.layers import Clockwork
from clockwork.nn.named import Named
from clockwork.nn.rnn_call import Lengths
from clockwork.nn.units import MLP
from clockwork.ops.linalg import Activation

PyTree = Any


class SequenceNetwork(Described, nnx.Module):
    """A stack of recurrent layers, and a prediction from the hidden states of the last one.

    Args:
        layers: the layers from input to output, each called like ``nnx.RNN``: `DeepTransition`, `Clockwork`,
            `Recurrent`, ``nnx.RNN``, ...
        predict: maps the outputs ``(*batch, T, N)`` of the last layer to predictions ``(*batch, T, O)``; a function or
            any nnx module.
        before: maps inputs ``(*batch, T, I)`` to the inputs of the first layer; None passes them unchanged.

    Raises:
        ValueError: if there is no layer, or an element is not a layer.

    Example:
        >>> import clockwork as cw, jax.numpy as jnp
        >>> from flax import nnx
        >>> from clockwork.nn import MLP, Clockwork
        >>> rngs, clock = nnx.Rngs(0), cw.Clock.exponential(width=40, modules=3)
        >>> network = SequenceNetwork([Clockwork(clock, 88, rngs=rngs)], MLP(40, (88,), rngs=rngs))
        >>> carry, first = network(jnp.ones((8, 16, 88)), return_carry=True)
        >>> network(jnp.ones((8, 16, 88)), initial_carry=carry, start=16).shape
        (8, 16, 88)
    """

    def __init__(
        self,
        layers: Sequence[Any],
        predict: Callable[[Array], Array],
        *,
        before: Callable[[Array], Array] | None = None,
    ) -> None:
        self.layers = nnx.List(check_layers(layers))
        self.predict: Any = predict
        self.before: Any = before

    def _arguments(self) -> dict[str, Any]:
        given = {"layers": list(self.layers), "predict": self.predict, "before": self.before}
        return unless_default(given, before=None)

    @property
    def num_parameters(self) -> int:
        """The number of weights and biases."""
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(self, nnx.Param)))

    @property
    def num_weights(self) -> int:
        """The number of weights without the biases, as Table 1 of Pascanu et al. (2013) counts them."""
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(self, nnx.Param)) if leaf.ndim > 1)

    def __call__(
        self,
        inputs: ArrayLike,
        *,
        initial_carry: Sequence[PyTree] | None = None,
        seq_lengths: Lengths | None = None,
        return_carry: bool = False,
        start: int | None = None,
    ) -> Any:
        """Predict at every step.

        Args:
            inputs: ``(*batch, T, I)``.
            initial_carry: the carry of each layer to continue from, as an earlier call returned them.
            seq_lengths: ``(*batch)``, integers from 0 to T; steps beyond a sequence's length are ignored, and the
                predictions there are meaningless.
            return_carry: whether to return the carry of each layer too.
            start: for `Clockwork` layers, the time of their carry modulo ``clock.cycle``; see `Clockwork.__call__`.

        Returns:
            Predictions ``(*batch, T, O)``. With ``return_carry``, a tuple of the layers' carries comes before them.

        Raises:
            ValueError: if a layer raises it, or ``initial_carry`` does not have one carry for each layer.
        """
        x = jnp.asarray(inputs)
        x = x if self.before is None else self.before(x)
        carries: list[PyTree] = [None] * len(self.layers) if initial_carry is None else list(initial_carry)
        if len(carries) != len(self.layers):
            raise ValueError(
                f"initial_carry must have one carry for each of the {len(self.layers)} layers, got {len(carries)}"
            )
        for i, layer in enumerate(self.layers):
            own: dict[str, Any] = {"start": start} if isinstance(layer, Clockwork) and start is not None else {}
            carries[i], x = layer(
                x, initial_carry=carries[i], seq_lengths=seq_lengths, return_carry=True, time_major=False, **own
            )
        y = self.predict(x)
        return (tuple(carries), y) if return_carry else y


class DeepRNN(SequenceNetwork):
    """Any recurrent network of Pascanu et al. (2013): deep in its input, transition or output, or stacked.

    Without options it is the conventional RNN, ``h_t = f(W h_{t-1} + U x_t)``, ``y_t = V h_t``. ``middle`` makes the
    transition deep (DT(S)-RNN, or DT-RNN without shortcuts), and ``output`` the output (DO-RNN); both together give
    DOT(S)-RNN and DOT-RNN. ``before`` makes the input deep, and ``stacked`` stacks hidden layers (sRNN). The output is
    linear: a softmax or sigmoid belongs to the loss.

    Args:
        in_features: ``I``, the number of inputs.
        hidden_features: ``N``, the number of hidden units of each layer.
        out_features: ``O``, the number of outputs.
        middle: the number of units of each layer between two hidden states.
        output: the number of units of each layer between hidden state and output.
        before: the number of units of each layer between input and hidden state.
        stacked: the number of stacked hidden layers, each with the transition layers ``middle``.
        shortcuts: whether every layer of a transition receives the previous hidden state and the input.
        activation: ``f``, elementwise; ``jnp.tanh`` if None.
        dropout: the probability with which each unit between hidden state and output is dropped in training.
        kernel_init: draws the input and output weights; N(0, 0.1²) if None, as for the next two.
        recurrent_kernel_init: draws each matrix of a transition; `clockwork.deep.Sparse` is the paper's.
        bias_init: draws the biases.
        rngs: the source of the random keys (streams ``params`` and, for dropout, ``dropout``).

    Raises:
        ValueError: if a number is out of range, or the activation is not a function.

    Example:
        Two of the sizes in the paper's Table 1:

        >>> from flax import nnx
        >>> music = DeepRNN(88, 400, 88, middle=(400,), rngs=nnx.Rngs(0))  # DT(S)-RNN
        >>> text = DeepRNN(50, 400, 50, middle=(400,), output=(600,), rngs=nnx.Rngs(0))  # DOT(S)-RNN
        >>> music.num_weights, text.num_weights
        (585600, 790000)
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int,
        *,
        middle: Sequence[int] = (),
        output: Sequence[int] = (),
        before: Sequence[int] = (),
        stacked: int = 1,
        shortcuts: bool = True,
        activation: Activation | None = None,
        dropout: float = 0.0,
        kernel_init: Initializer | None = None,
        recurrent_kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        others = {"kernel_init": kernel_init, "bias_init": bias_init, "rngs": rngs}
        first = _Activated(in_features, before, activation, others) if before else None
        widths = [
            before[-1] if before else in_features,
            *[hidden_features] * (integer("stacked", stacked, least=1) - 1),
        ]
        layers = [
            DeepTransition(
                width, hidden_features, middle, shortcuts=shortcuts, activation=activation,
                recurrent_kernel_init=recurrent_kernel_init, **others,
            )
            for width in widths
        ]  # fmt: skip
        predict = MLP(hidden_features, (*output, out_features), activation=activation, dropout=dropout, **others)
        super().__init__(layers, predict, before=first)
        self._given = {
            "in_features": in_features, "hidden_features": hidden_features, "out_features": out_features,
            "middle": tuple(middle), "output": tuple(output), "before": tuple(before), "stacked": stacked,
            "shortcuts": shortcuts,
        }  # fmt: skip

    def _arguments(self) -> dict[str, Any]:
        return unless_default(self._given, middle=(), output=(), before=(), stacked=1, shortcuts=True)


class _Activated(nnx.Module):
    """An MLP whose last layer also has the activation."""

    def __init__(
        self, in_features: int, sizes: Sequence[int], activation: Activation | None, others: dict[str, Any]
    ) -> None:
        self.mlp = MLP(in_features, sizes, activation=activation, **others)
        self._activation = Named(activation or jnp.tanh)

    def __call__(self, x: Array) -> Array:
        return self._activation.function(self.mlp(x))
