"""Layers of everyday sizes, against a masked scan and Flax: ``python benchmarks/small.py``, some three minutes.

Loss and gradient of one layer with a batch, and of a few runs of a layer without inputs. Each row's ways are timed in
turn in one process; medians, and seconds of compilation.
"""

import argparse
import itertools

import jax
import jax.numpy as jnp
from alternatives import cascade, flax_simple, masked
from timing import Timed, compiled, measure
from works import many_gradient

import clockwork as cw

FEATURES, OUTPUTS = 16, 8
HEAD = "| what | ours, ms | masked scan | nnx.RNN(SimpleCell) | compiling, s: ours, masked, Flax |"


def batch_gradient(network: tuple, steps: int, batch: int) -> Timed:
    """Loss and gradient of one network and a batch."""
    init, forward = network
    inputs = jax.random.normal(jax.random.key(1), (batch, steps, FEATURES))
    whole = getattr(forward, "forward", None)  # a layer of Flax takes batches as they are

    def loss(params: object) -> jax.Array:
        if whole is not None:
            return jnp.square(whole(params, inputs, steps)).mean()
        return jnp.square(jax.vmap(lambda x: forward(params, x, steps))(inputs)).mean()

    return compiled(jax.value_and_grad(loss), init(jax.random.key(0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="two rows, three repeats: only to see that it runs")
    options = parser.parse_args()
    repeats = 3 if options.quick else options.repeats
    print(HEAD, "| --- | ---: | ---: | ---: | --- |", sep="\n")
    for batch, steps, width in [*itertools.product((1, 8, 64), (32, 512), (16, 128))][: 1 if options.quick else None]:
        clock = cw.Clock.exponential(width, 4)
        networks = (
            cascade(clock, FEATURES, OUTPUTS),
            masked(clock, FEATURES, OUTPUTS),
            flax_simple(width, FEATURES, OUTPUTS),
        )
        ways = [batch_gradient(network, steps, batch) for network in networks]
        row(f"batch {batch}, T = {steps}, N = {width}, g = 4", ways, repeats)
    for runs, width in [*itertools.product((2, 5, 20), (16, 40))][: 1 if options.quick else None]:
        clock = cw.Clock.exponential(width, 4)
        ways = [many_gradient(n, 320, runs) for n in (cascade(clock), masked(clock), flax_simple(width))]
        row(f"{runs} runs, T = 320, N = {width}, g = 4", ways, repeats)


def row(name: str, ways: list[Timed], repeats: int) -> None:
    """Time a row and print it."""
    found = list(measure(dict(zip(("ours", "masked", "flax"), ways, strict=True)), repeats, 2.0).values())
    others = " | ".join(f"{way['ratio']:.1f}" for way in found[1:])
    compiling = ", ".join(f"{way['compiling']:.2f}" for way in found)
    print(f"| {name} | {found[0]['ms']:.3g} | {others} | {compiling} |", flush=True)


if __name__ == "__main__":
    main()
