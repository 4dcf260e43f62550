"""Strict by default: no silent promotion of dtypes or ranks, and two devices on every machine."""

import re
import shutil
from pathlib import Path

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_compilation_cache", False)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def float64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Makes what the examples in docstrings read, once each: a recording, and results folders of short sweeps."""
    from clockwork.tasks import Generation, Words
    from clockwork.training import sweep

    tasks = {
        "generation": Generation(runs=2, networks=("cwrnn",), sizes=(100,), clips=("choir",), epochs=5),
        "words": Words(runs=2, networks=("srn",), sizes=(500,), epochs=1),
    }
    here = tmp_path_factory.mktemp("examples")
    shutil.copy(Path(__file__).parent / "tests/data/making_fl_rms.wav", here / "making.wav")

    def make(names):
        for name in names:
            folder = here / "results" / name
            if not folder.exists():
                sweep(tasks[name], folder)
        return here

    return make


@pytest.fixture(autouse=True)
def _examples_find_results(request, monkeypatch):
    if isinstance(request.node, pytest.DoctestItem):
        sources = "".join(example.source for example in request.node.dtest.examples)
        if names := re.findall(r'"results/(\w+)"', sources):
            monkeypatch.chdir(request.getfixturevalue("finished")(names))
