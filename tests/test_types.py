"""What type checkers say of a user's script, against the installed wheel."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = """\
from typing import Any, assert_type

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx

import clockwork as cw
from clockwork.nn import FLAX, Bidirectional, Clockwork, ClockworkCell, ClockworkOfCells, ClockworkRNN, Stack, linen

clock = cw.Clock(periods=(1, 2, 4), sizes=(4, 4, 3))
clock = cw.Clock.exponential(width=40, modules=9)
weights = cw.init(jax.random.key(0), clock, inputs=13)
outputs, hidden = jax.jit(cw.unroll)(weights, clock, jnp.ones((320, 13)))
assert_type(cw.unroll(weights, clock, jnp.ones((320, 13)))[0], jax.Array)

rngs = nnx.Rngs(0)
layer = Clockwork(clock, 13, rngs=rngs)
layer = Clockwork(clock, 13, **FLAX, activation=jax.nn.relu, dtype=jnp.bfloat16, return_carry=True, rngs=rngs)
assert_type(layer.cell, ClockworkCell)
assert_type(layer.cell.weights, cw.Weights)
assert_type(layer.cell.weights.bias, jax.Array)
assert_type(layer.clock, cw.Clock)
lstms = Clockwork(clock, 13, cell=nnx.LSTMCell, method="masked", rngs=rngs)
assert_type(lstms.cell, ClockworkOfCells)
any_of_them: list[Clockwork[Any]] = [layer, lstms]

x = jnp.ones((8, 320, 13))
for lengths in (jnp.arange(1, 9), np.arange(1, 9), [1, 2, 3, 4, 5, 6, 7, 8]):
    carry, outputs = layer(x, seq_lengths=lengths, return_carry=True)
outputs = layer(x[0], seq_lengths=3, reverse=True, keep_order=True)
both = Bidirectional(layer, Clockwork(clock, 13, rngs=rngs), merge="sum")
outputs = both(np.ones((8, 320, 13)), seq_lengths=np.arange(1, 9))
stack = Stack([both, nnx.RNN(nnx.GRUCell(40, 8, rngs=rngs))], skip=False)
outputs = stack(x, seq_lengths=np.arange(1, 9))
network = ClockworkRNN(clock, 13, rngs=rngs)
outputs = jax.vmap(network)(x)


class Model(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.layer = Clockwork(clock, 13, rngs=rngs)
        self.readout = nnx.Linear(clock.width, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.readout(self.layer(x))


assert_type(Model(rngs).layer.cell.weights, cw.Weights)

module = linen.Clockwork(clock, cell=nn.LSTMCell)
variables = module.init(jax.random.key(0), x)
result = module.apply(variables, x, seq_lengths=np.arange(1, 9))

cw.Clock("a", 3)  # wrong
cw.Clock((1, 2), (4, "4"))  # wrong
layer(x, seq_lengths="three")  # wrong
layer(x[0], seq_lengths=3.0)  # wrong
both(x[0], seq_lengths=3.0)  # wrong
stack(x[0], seq_lengths=3.0)  # wrong
linen.Clockwork(clock)(x[0], seq_lengths=3.0)  # wrong
Clockwork(clock, 13, method="fast", rngs=rngs)  # wrong
Clockwork(clock, "13", rngs=rngs)  # wrong
print(lstms.cell.weights)  # wrong
"""  # type checkers accept every line but those marked as wrong


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder of packages with nothing but what the wheel holds."""
    folder = tmp_path_factory.mktemp("wheel")
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, *build, str(ROOT)], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "packages")
    return folder / "packages"


@pytest.mark.slow
def test_the_wheel_has_the_data_and_not_the_scripts_that_made_them(installed):
    names = {path.name for path in (installed / "clockwork/data").iterdir()}
    assert {"words.npz", "clips.npz", "words.json"} <= names
    assert not any(name.startswith("make_") for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("checker", ["pyright", "mypy"])
def test_a_users_script_against_the_wheel(installed, checker, tmp_path):
    assert (installed / "clockwork/py.typed").exists()
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    if checker == "mypy":
        command = ["--cache-dir", str(tmp_path / "cache"), "--strict", str(script)]
    else:
        (tmp_path / "pyrightconfig.json").write_text(f'{{"extraPaths": ["{installed}"]}}')
        command = ["--pythonpath", sys.executable, "--project", str(tmp_path / "pyrightconfig.json")]
    environment = {**os.environ, "MYPYPATH": str(installed), "PYTHONPATH": str(installed)}
    said = subprocess.run(
        [sys.executable, "-m", checker, *command], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    wrong = {number for number, line in enumerate(SCRIPT.splitlines(), 1) if line.endswith("# wrong")}
    found = {int(number) for number in re.findall(r"script\.py:(\d+)(?::\d+)?(?:: error| - error)", said.stdout)}
    assert found == wrong, said.stdout + said.stderr
    assert str(ROOT / "clockwork") not in said.stdout
