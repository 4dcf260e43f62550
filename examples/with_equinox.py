"""A clockwork layer beside the layers of another library, Equinox: its weights are a pytree, as any module's are.

The model hears a noisy chirp, and must say whether its pitch rises or falls.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import clockwork as cw

STEPS, UPDATES = 120, 400


class Classifier(eqx.Module):
    """A clockwork layer, and a readout of what it holds at the end."""

    weights: cw.Weights
    readout: eqx.nn.Linear
    clock: cw.Clock = eqx.field(static=True)  # nothing that is learnt

    def __init__(self, clock, *, key):
        layer_key, readout_key = jax.random.split(key)
        self.weights = cw.init(layer_key, clock, inputs=1)
        self.readout = eqx.nn.Linear(clock.width, "scalar", key=readout_key)
        self.clock = clock

    def __call__(self, inputs):
        _, hidden = cw.unroll(self.weights, self.clock, inputs)  # (T, 1) to (N,)
        return self.readout(hidden)


def chirps(key, count):
    phase_key, label_key, noise_key = jax.random.split(key, 3)
    rises = jax.random.bernoulli(label_key, shape=(count, 1))
    time = jnp.linspace(0, 1, STEPS)
    turns = 4 * time + 8 * jnp.where(rises, time**2, 2 * time - time**2)  # from 4 turns a sequence to 20, or back
    wave = jnp.sin(2 * jnp.pi * (turns + jax.random.uniform(phase_key, (count, 1))))
    return (wave + 0.3 * jax.random.normal(noise_key, wave.shape))[..., None], rises[:, 0]


def loss(model, inputs, rises):
    return optax.sigmoid_binary_cross_entropy(jax.vmap(model)(inputs), rises.astype(inputs.dtype)).mean()


@eqx.filter_jit
def update(model, state, key):
    error, gradient = eqx.filter_value_and_grad(loss)(model, *chirps(key, 64))
    updates, state = optimizer.update(gradient, state)
    return eqx.apply_updates(model, updates), state, error


@eqx.filter_jit
def accuracy(model, inputs, rises):
    return ((jax.vmap(model)(inputs) > 0) == rises).mean()


model = Classifier(cw.Clock.exponential(width=32, modules=4), key=jax.random.key(0))
optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, UPDATES))
state = optimizer.init(eqx.filter(model, eqx.is_array))
test = chirps(jax.random.key(1), 500)
print(f"before training: {accuracy(model, *test):.1%} of 500 new chirps right")
for i in range(UPDATES):
    model, state, error = update(model, state, jax.random.key(2 + i))
print(f"after {UPDATES} updates: {accuracy(model, *test):.1%}")
