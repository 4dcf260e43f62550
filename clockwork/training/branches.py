"""The loss by one of several functions, such as one for each length of a batch."""

from collections.abc import Callable, Sequence

import jax
from jax import Array, lax

from clockwork.training.model import split
from clockwork.training.task import PyTree


def switch(index: Array, losses: Sequence[Callable[[PyTree], Array]], model: PyTree) -> Array:
    """The loss of a model by the function of this number: ``losses[index](model)``.

    It is ``lax.switch``, but its gradient is taken within the branch. The gradient of ``lax.switch`` itself keeps what
    every branch needs for its backward pass, zeros for those not taken; that costs more than small branches do. Only
    the first derivative by the model's parameters is there.

    Args:
        index: ``()``, int32.
        losses: functions of the model that return ``()``; they must not change its state.
        model: an nnx module or a tree of arrays.

    Example:
        >>> import jax.numpy as jnp
        >>> losses = [lambda model: model["a"] ** 2, lambda model: 3 * model["a"]]
        >>> jax.grad(lambda model: switch(jnp.int32(0), losses, model))({"a": jnp.float32(5)})["a"].item()
        10.0
    """
    structure, params, rest = split(model)

    def within(loss: Callable[[PyTree], Array], params: PyTree) -> Array:
        return loss(structure.merge(params, rest))

    @jax.custom_vjp
    def value(params: PyTree) -> Array:
        return lax.switch(index, [lambda params, loss=loss: within(loss, params) for loss in losses], params)

    def forward(params: PyTree) -> tuple[Array, PyTree]:
        branches = [lambda params, loss=loss: jax.value_and_grad(within, 1)(loss, params) for loss in losses]
        return lax.switch(index, branches, params)

    def backward(gradient: PyTree, cotangent: Array) -> tuple[PyTree]:
        return (jax.tree.map(lambda leaf: cotangent.astype(leaf.dtype) * leaf, gradient),)

    value.defvjp(forward, backward)
    return value(params)
