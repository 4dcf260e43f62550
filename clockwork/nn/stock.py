"""Flax's own LSTM and GRU cells, run by this library's kernels, with their parameters. This file uses no Flax API."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from clockwork.gru import GRUWeights
from clockwork.lstm import LSTMWeights
from clockwork.nn.batched import unroll_gru, unroll_lstm
from clockwork.nn.carry import last_of

PyTree = Any
Arrays = Mapping[str, Array | None]  # the arrays of a cell by path, such as "hi/kernel"


def lstm_of_parts(arrays: Arrays, prefixes: tuple[str, ...]) -> LSTMWeights:
    """The weights of an LSTM cell that has a matrix for each gate.

    Args:
        arrays: the cell's arrays.
        prefixes: the names of the input matrices of the input gate, forget gate, cell and output gate.
    """
    hidden = ("hi", "hf", "hg", "ho")
    return _lstm(
        _joined(arrays, [f"{name}/kernel" for name in prefixes]),
        _joined(arrays, [f"{name}/kernel" for name in hidden]),
        _joined(arrays, [f"{name}/bias" for name in hidden]),
    )


def lstm_of_whole(arrays: Arrays) -> LSTMWeights:
    """The weights of an LSTM cell with one matrix for all gates."""
    return _lstm(*(_joined(arrays, [name]) for name in ("dense_i/kernel", "dense_h/kernel", "dense_h/bias")))


def gru_of_parts(arrays: Arrays) -> GRUWeights:
    """The weights of a GRU cell that has a matrix for each gate."""
    return GRUWeights(
        _joined(arrays, ["ir/kernel", "iz/kernel", "in/kernel"]),
        _joined(arrays, ["hr/kernel", "hz/kernel", "hn/kernel"]),
        _joined(arrays, ["ir/bias", "iz/bias", "in/bias"]),
        _joined(arrays, ["hn/bias"]),
    )


def gru_of_whole(arrays: Arrays) -> GRUWeights:
    """The weights of a GRU cell with one matrix for all gates, and no bias after the recurrent one."""
    recurrent = _joined(arrays, ["dense_h/kernel"])
    none = jnp.zeros(recurrent.shape[:1], recurrent.dtype)
    return GRUWeights(_joined(arrays, ["dense_i/kernel"]), recurrent, _joined(arrays, ["dense_i/bias"]), none)


def scan_stock(
    cell: Any,
    weights: Callable[[], LSTMWeights | GRUWeights],
    carry: PyTree,
    inputs: Array,
    ticks: Array | None,
) -> tuple[PyTree, Array] | None:
    """Run a cell over ``(S, B, I)`` like ``scan_cell``; None if the kernels do not compute the same.

    Args:
        cell: one of Flax's LSTM or GRU cells.
        weights: returns the cell's weights.
        carry: its carry, with one batch dimension B.
        inputs: ``(S, B, I)``.
        ticks: ``(B,)``, the number of steps after which a sequence's carry no longer changes; None for all steps.
    """
    if cell.gate_fn is not jax.nn.sigmoid or cell.activation_fn is not jnp.tanh:
        return None
    arrays = weights()
    dtype = arrays.bias.dtype
    dtypes = {leaf.dtype for leaf in jax.tree.leaves((arrays, carry))} | {jnp.result_type(inputs, dtype)}
    if dtypes != {dtype} or cell.dtype not in (None, dtype):
        return None
    if isinstance(arrays, GRUWeights):
        last, y = unroll_gru(arrays, inputs, carry)
        return (last if ticks is None else last_of(y, ticks, carry)), y
    return None if ticks is not None else unroll_lstm(arrays, inputs, carry, dtype)


def _joined(arrays: Arrays, names: list[str]) -> Array:
    found = []
    for name in names:
        array = arrays[name]
        assert array is not None
        found.append(array)
    return found[0] if len(found) == 1 else jnp.concatenate(found, -1)


def _lstm(input: Array, recurrent: Array, bias: Array) -> LSTMWeights:
    return LSTMWeights(input, recurrent, jnp.zeros((3, recurrent.shape[0]), recurrent.dtype), bias)
