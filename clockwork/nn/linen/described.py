"""The ``repr`` of linen modules: the call that makes them."""

import dataclasses
from typing import Any

from clockwork.nn.construction import constructor


class Described:
    """A base class of modules whose ``repr`` is one line or a few."""

    def _arguments(self) -> dict[str, Any]:
        """The fields that have another value than their default."""
        fields = dataclasses.fields(self)  # pyright: ignore[reportArgumentType]
        fields = [field for field in fields if field.init and field.name not in ("parent", "name")]
        given = {field.name: getattr(self, field.name) for field in fields}
        defaults = {field.name: field.default for field in fields}
        return {name: value for name, value in given.items() if value is not defaults[name] and value != defaults[name]}

    def __repr__(self) -> str:
        """The call that makes the module."""
        return constructor(type(self).__name__, self._arguments())
