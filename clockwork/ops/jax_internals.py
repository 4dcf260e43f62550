"""Every name of JAX that the library uses and that JAX does not document, or calls experimental.

A release of JAX may move or remove any of them without notice. They are used through this file only, each with its
purpose, so that a test can say which one moved. Pallas and MLIR are imported on first use: Pallas takes half a second
to import, and only GPU kernels need it.
"""

import functools
import importlib
from typing import Any

import jax
from jax.core import ShapedArray
from jax.custom_batching import custom_vmap
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

__all__ = ["NAMES", "Primitive", "ShapedArray", "ad", "batching", "custom_vmap", "find", "mlir", "mlir_gpu", "pallas"]

NAMES = {
    "jax.core.ShapedArray": "to say what shape, dtype and sharding an operation's results have",
    "jax.custom_batching.custom_vmap": "to batch GPU kernels, and the sums of the CTC loss",
    "jax.extend.core.Primitive": "to make an operation a primitive",
    "jax.interpreters.ad.instantiate_zeros": "to transpose an operation where a result has no cotangent",
    "jax.interpreters.ad.is_undefined_primal": "to transpose an operation",
    "jax.interpreters.ad.primitive_jvps": "to refuse second derivatives",
    "jax.interpreters.ad.primitive_transposes": "to transpose an operation",
    "jax.interpreters.batching.primitive_batchers": "to batch an operation",
    "jax.interpreters.mlir.lower_fun": "to lower an operation",
    "jax.interpreters.mlir.register_lowering": "to lower an operation",
    "jax.experimental.pallas.ds": "to slice the arrays of a GPU kernel",
    "jax.experimental.pallas.pallas_call": "to interpret a GPU kernel on any machine, in tests",
    "jax.experimental.pallas.program_id": "to interpret a GPU kernel on any machine, in tests",
    "jax.experimental.pallas.mosaic_gpu.CompilerParams": "to compile a GPU kernel",
    "jax.experimental.pallas.mosaic_gpu.Layout.WG_STRIDED": "to give every thread of a GPU kernel one value",
    "jax.experimental.pallas.mosaic_gpu.LoweringSemantics.Lane": "to compile a GPU kernel",
    "jax.experimental.pallas.mosaic_gpu.SMEM": "to share values between the threads of a GPU kernel",
    "jax.experimental.pallas.mosaic_gpu.ShapeDtypeStruct": "to shuffle values between the threads of a warp",
    "jax.experimental.pallas.mosaic_gpu.commit_smem": "to share values between the threads of a GPU kernel",
    "jax.experimental.pallas.mosaic_gpu.inline_mgpu": "to shuffle values between the threads of a warp",
    "jax.experimental.pallas.mosaic_gpu.kernel": "to launch a GPU kernel",
    "jax.experimental.pallas.mosaic_gpu.layout_cast": "to give every thread of a GPU kernel one value",
    "jax.experimental.mosaic.gpu.FragmentedArray": "to shuffle values between the threads of a warp",
    "jax.experimental.mosaic.gpu.utils.bitcast": "to shuffle values between the threads of a warp",
    "jax.experimental.mosaic.gpu.utils.c": "to shuffle values between the threads of a warp",
    "jaxlib.mlir.ir.IntegerType.get_signless": "to shuffle values between the threads of a warp",
    "jaxlib.mlir.dialects.nvvm.ShflKind": "to shuffle values between the threads of a warp",
    "jaxlib.mlir.dialects.nvvm.shfl_sync": "to shuffle values between the threads of a warp",
    "jaxlib.mlir.dialects.vector.broadcast": "to shuffle values between the threads of a warp",
    "jaxlib.mlir.dialects.vector.extract": "to shuffle values between the threads of a warp",
}


def find(name: str) -> Any:
    """The object that a dotted name of `NAMES` refers to.

    Raises:
        ImportError: if this release of JAX no longer has it; the message says what it is needed for.
    """
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
            break
        except ModuleNotFoundError:
            continue
    else:
        found, end = None, 0
    for part in parts[end:]:
        if not hasattr(found, part):
            raise ImportError(f"jax {jax.__version__} no longer has {name}, which clockwork needs {NAMES[name]}")
        found = getattr(found, part)
    return found


@functools.cache
def pallas() -> tuple[Any, Any]:
    """The modules ``jax.experimental.pallas`` and ``jax.experimental.pallas.mosaic_gpu``."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import mosaic_gpu as plgpu

    return pl, plgpu


@functools.cache
def mlir_gpu() -> tuple[Any, Any, Any, Any, Any]:
    """Mosaic GPU's ``FragmentedArray`` and ``utils``, and MLIR's ``ir``, ``nvvm`` and ``vector``."""
    from jax.experimental.mosaic.gpu import FragmentedArray, utils
    from jaxlib.mlir import ir
    from jaxlib.mlir.dialects import nvvm, vector

    return FragmentedArray, utils, ir, nvvm, vector
