"""The ``repr`` of nnx modules: the call that makes them, in place of flax's list of all parameters."""

from collections.abc import Generator, Mapping
from typing import Any

from clockwork.nn.construction import constructor


class Described:
    """A base class of modules whose ``repr`` is one line or a few, also inside other nnx modules."""

    def _arguments(self) -> Mapping[str, Any]:
        """The arguments of the constructor by name; those that have their default value may be left out."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """The call that makes the module."""
        return constructor(type(self).__name__, self._arguments())

    __str__ = __repr__

    def __nnx_repr__(self) -> Generator[Any, None, None]:
        """The same ``repr`` for a module inside another one, for which Flax calls this method."""
        from flax.nnx import reprlib  # not documented; nothing but reprlib itself calls this method

        yield reprlib.Object(type="", start="", end="", kv_sep="", indent="", same_line=True)
        yield reprlib.Attr("", repr(self), use_raw_value=True, use_raw_key=True)


def unless_default(given: Mapping[str, Any], **defaults: Any) -> dict[str, Any]:
    """The arguments without those that have their default value."""
    return {name: value for name, value in given.items() if name not in defaults or value != defaults[name]}
