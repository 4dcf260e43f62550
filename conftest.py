"""Strict by default: no silent promotion of dtypes or ranks, and two devices on every machine.

Nearly all the time of the tests goes into compilation. So XLA does without LLVM's costly passes here (set
``XLA_FLAGS``, empty if you like, for what users get), and what one test has compiled serves all others of the same
session, in every process.
"""

import os
import re
import shutil
import tempfile
from pathlib import Path

os.environ["JAX_NUM_CPU_DEVICES"] = "2"  # not only in this process: programs that tests start read the same folders
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
# For programs that tests start. Two may compile the same at once, and one then read what the other has half written.
os.environ["CLOCKWORK_TEST_WARNINGS"] = "error,ignore:Error reading persistent compilation cache entry:UserWarning"
if "CLOCKWORK_TEST_CACHE" not in os.environ:  # the first process; the others inherit it
    os.environ["CLOCKWORK_TEST_CACHE"] = tempfile.mkdtemp(prefix="clockwork-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ["CLOCKWORK_TEST_CACHE"]
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_unconfigure(config):
    """Remove the compiled programs of this session."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ["CLOCKWORK_TEST_CACHE"], ignore_errors=True)


@pytest.fixture
def float64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Makes what the examples in docstrings read: inputs, and results folders of short sweeps.

    Each sweep is trained once in a session, for all its processes, and copied.
    """
    from filelock import FileLock

    from clockwork.data import embedded_lines, write_iam_ondb
    from clockwork.tasks import Generation, Handwriting, Music, TextPrediction, Words
    from clockwork.training import sweep

    shared = Path(os.environ["CLOCKWORK_TEST_CACHE"]) / "examples"
    shared.mkdir(exist_ok=True)
    lines = shared / "lines" / "set"
    tasks = {
        "generation": Generation(runs=2, networks=("cwrnn",), sizes=(100,), clips=("choir",), epochs=5),
        "words": Words(runs=2, networks=("srn",), sizes=(500,), epochs=1),
        "music": Music(runs=1, networks=("rnn",), sizes=(500,), epochs=1, protocol="paper"),
        "text": TextPrediction(runs=1, networks=("rnn",), sizes=(500,), epochs=1, protocol="paper"),
        "handwriting": Handwriting(runs=1, networks=("srn",), epochs=1, data_folder=str(lines)),
    }
    here = tmp_path_factory.mktemp("examples")
    shutil.copy(Path(__file__).parent / "tests/data/making_fl_rms.wav", here / "making.wav")

    def make(names):
        for name in names:
            folder = here / "results" / name
            if folder.exists():
                continue
            with FileLock(shared / f"{name}.lock"):
                if name == "handwriting" and not lines.exists():
                    lines.parent.mkdir()
                    write_iam_ondb(embedded_lines(lines_each=1), lines)
                sweep(tasks[name], shared / name)
                shutil.copytree(shared / name, folder)
            if name == "handwriting":
                shutil.copy(next(lines.glob("lineStrokes/*/*/*.xml")), here / "line.xml")
        return here

    return make


@pytest.fixture(autouse=True)
def _examples_find_results(request, monkeypatch):
    if isinstance(request.node, pytest.DoctestItem):
        sources = "".join(example.source for example in request.node.dtest.examples)
        if names := re.findall(r'"results/(\w+)"', sources):
            monkeypatch.chdir(request.getfixturevalue("finished")(names))
        elif "save_file(" in sources:
            monkeypatch.chdir(request.getfixturevalue("tmp_path"))
