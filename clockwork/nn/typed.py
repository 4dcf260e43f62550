"""The options of layers, for type checkers."""

from typing import Required, TypedDict

from flax import nnx
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from clockwork.recurrence import Activation, Method


class CallOptions(TypedDict, total=False):
    """The options of `Clockwork` with any cell."""

    method: Method
    time_major: bool
    return_carry: bool
    reverse: bool
    keep_order: bool
    rngs: Required[nnx.Rngs]


class Options(CallOptions, total=False):
    """The options of `Clockwork` without ``cell``."""

    activation: Activation | None
    dtype: DTypeLike | None
    param_dtype: DTypeLike | None
    kernel_init: Initializer | None
    recurrent_kernel_init: Initializer | None
    bias_init: Initializer | None
