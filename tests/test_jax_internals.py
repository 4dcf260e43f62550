"""Every undocumented name of JAX that the library uses is there, and only one file of the library uses such names."""

import re
from pathlib import Path

import pytest

import clockwork
from clockwork.ops import jax_internals

PACKAGE = Path(clockwork.__file__).parent


@pytest.mark.parametrize("name", jax_internals.NAMES)
def test_this_release_of_jax_has_it(name):
    assert jax_internals.find(name) is not None  # if not, an ImportError says what moved and what needs it


@pytest.mark.parametrize("moved", ["jax.interpreters.mlir.lower_function", "jax.interpreters.gone.lower", "gone.lower"])
def test_a_name_that_moved_is_reported_in_plain_words(monkeypatch, moved):
    monkeypatch.setitem(jax_internals.NAMES, moved, "to lower an operation")
    with pytest.raises(
        ImportError, match=rf"^jax \S+ no longer has {moved}, which clockwork needs to lower an operation$"
    ):
        jax_internals.find(moved)


def test_no_other_file_imports_undocumented_names():
    undocumented = r"jax\._src|jax\.interpreters|jax\.extend|jax\.custom_batching|jax\.experimental|jaxlib"
    pattern = re.compile(rf"^\s*(from|import) ({undocumented}|jax\.core import ShapedArray)", re.MULTILINE)
    found = {path.name for path in PACKAGE.rglob("*.py") if pattern.search(path.read_text())}
    assert found == {"jax_internals.py"}
