"""The fields of linen modules, and their ``repr``: the call that makes them."""

import dataclasses
from typing import Any

from clockwork.nn.construction import constructor


def own_fields(module: Any) -> list[dataclasses.Field[Any]]:
    """The fields of a linen module without ``parent`` and ``name``, which Flax adds to every module."""
    return [field for field in dataclasses.fields(module) if field.name not in ("parent", "name")]


class Described:
    """A base class of modules whose ``repr`` is one line or a few."""

    def _arguments(self) -> dict[str, Any]:
        """The fields whose value differs from the default."""
        fields = [field for field in own_fields(self) if field.init]
        given = {field.name: getattr(self, field.name) for field in fields}
        defaults = {field.name: field.default for field in fields}
        return {name: value for name, value in given.items() if value is not defaults[name] and value != defaults[name]}

    def __repr__(self) -> str:
        """The call that makes the module."""
        return constructor(type(self).__name__, self._arguments())
