"""Blocks of runs: cut anywhere, trained anywhere, interrupted anywhere, and the same results come out."""

import concurrent.futures
import dataclasses
import importlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from clockwork.tasks import Generation
from clockwork.training import Condition, FolderError, Loss, Pool, PoolError, Progress, Task, open_results, sweep
from clockwork.training.blocks import blocks_of
from clockwork.training.status import status

memory = importlib.import_module("clockwork.training.memory")


class Walk(Task):
    """Runs that stop at different epochs, and some that diverge; every number is the same whatever runs beside it."""

    name, columns, runs, epochs = "walk", ("data", "error"), 13, 17
    patience, restore_best, kept_outputs, curve_every = 3, True, 4, 2

    def conditions(self):
        return [Condition("walker", 0, "", (("learning_rate", rate),)) for rate in (0.5, 0.25)]

    def settings(self):
        return {"runs": self.runs, "epochs": self.epochs}

    @classmethod
    def from_settings(cls, settings):
        return cls()

    def data(self, condition):
        return np.zeros(1, np.float32)

    def model(self, name, size, rngs, hyperparameters):
        return {"at": jax.random.normal(rngs.params(), (3,))}

    def optimizer(self, hyperparameters):
        return optax.sgd(hyperparameters["learning_rate"])

    def loss(self, model, data, step):
        noise = jax.random.normal(step.key, (3,))
        far = jnp.where(model["at"][0] > 1.5, jnp.inf, 1.0)
        return Loss(((model["at"] - noise) * jax.lax.stop_gradient(model["at"] + noise) * far).sum())

    def watch(self, model, data):
        return jnp.abs(model["at"][1])

    def result(self, model, data):
        return jnp.abs(model["at"][2]), model["at"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, sweep(Walk(), folder)


def assert_same(found, wanted):
    assert list(found.conditions) == list(wanted.conditions)
    for condition, result in wanted.conditions.items():
        for field, value in result._asdict().items():
            got = getattr(found.conditions[condition], field)
            jax.tree.map(lambda a, b, field=field: np.testing.assert_array_equal(a, b, err_msg=field), got, value)


def assert_near(found, wanted, rtol=1e-5):
    """Every finite figure, and the same runs flagged."""
    for condition, result in wanted.conditions.items():
        got = found.conditions[condition]
        np.testing.assert_array_equal(got.diverged, result.diverged)
        np.testing.assert_array_equal(got.epochs, result.epochs)
        np.testing.assert_allclose(got.error, result.error, rtol=rtol)
        np.testing.assert_allclose(got.curve, result.curve, rtol=rtol)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((10, 4), [(0, 4), (4, 7), (7, 10)]),
        ((10, 10), [(0, 10)]),
        ((10, 99), [(0, 10)]),
        ((3, 1), [(0, 1), (1, 2), (2, 3)]),
        ((10, 4, [range(2, 8)]), [(0, 2), (2, 8), (8, 10)]),
        ((10, 4, [range(2, 8), range(0, 10)]), [(0, 2), (2, 8), (8, 10)]),  # the first that is given counts
        ((10, 4, [range(0, 10), range(2, 8)]), [(0, 10)]),
        ((10, 4, [range(8, 12), range(6, 8)]), [(0, 3), (3, 6), (6, 8), (8, 10)]),
    ],
)
def test_runs_are_cut_into_blocks(arguments, wanted):
    assert [(block.start, block.stop) for block in blocks_of(*arguments)] == wanted


def test_the_walkers_stop_and_diverge(whole):
    for result in whole[1].conditions.values():
        assert 0 < result.diverged.sum() < Walk.runs
        assert len(set(result.epochs.tolist())) > 2


@pytest.mark.parametrize("runs_per_device", [1, 3, 7])
def test_blocks_give_what_all_runs_give_side_by_side(whole, tmp_path, runs_per_device):
    found = sweep(Walk(), tmp_path, runs_per_device=runs_per_device)
    assert_same(found, whole[1])
    assert_same(open_results(tmp_path), whole[1])
    assert (tmp_path / "runs.csv").read_bytes() == (whole[0] / "runs.csv").read_bytes()
    assert not list((tmp_path / "partial").iterdir())


class Interrupt(Progress):
    """Ctrl-C in a block, after an epoch or more."""

    def __init__(self, block):
        self.left = block

    def group(self, label, runs):
        self.left -= 1

    def advance(self, epochs, diverged=0):
        if self.left <= 0 and epochs:
            raise KeyboardInterrupt


def interrupted(folder, block=3):
    with pytest.raises(KeyboardInterrupt):
        sweep(Walk(), folder, runs_per_device=3, progress=Interrupt(block))
    return sorted(path.name for path in (folder / "partial").iterdir())


@pytest.mark.parametrize("runs_per_device", [3, 1, None])
def test_an_interrupted_sweep_keeps_its_blocks_whatever_the_size_of_new_ones(whole, tmp_path, runs_per_device):
    assert interrupted(tmp_path) == ["walker.0-3.trained.npz", "walker.3-6.trained.npz", "walker.6-8.npz"]
    told = status(tmp_path)
    assert "walker: 12 of 26 networks trained" in told
    assert "runs 6 to 7 of walker: stored after epoch 17 of 17, " in told
    assert told.endswith("no sweep is training here now; the command that began it goes on")
    trained = []

    class Noted(Progress):
        def group(self, label, runs):
            trained.append(runs)

    assert_same(sweep(Walk(), tmp_path, runs_per_device=runs_per_device, progress=Noted()), whole[1])
    assert sum(trained) == 26
    assert trained[:3] == [6, 6, 4]
    assert (tmp_path / "runs.csv").read_bytes() == (whole[0] / "runs.csv").read_bytes()
    assert status(tmp_path).splitlines()[0].endswith("26 of 26 networks trained (2 of 2 conditions)")


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_to_stored_blocks_the_results_are_the_same(whole, tmp_path, seed):
    interrupted(tmp_path)
    drawn = random.Random(seed)
    for path in sorted((tmp_path / "partial").iterdir()):
        content = bytearray(path.read_bytes())
        match drawn.choice(["cut", "flipped", "missing", "empty", "whole"]):
            case "cut":
                del content[drawn.randrange(len(content)) :]
            case "flipped":
                content[drawn.randrange(len(content))] ^= 1 << drawn.randrange(8)
            case "empty":
                content.clear()
            case "missing":
                path.unlink()
                continue
        path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* is damaged")
        found = sweep(Walk(), tmp_path, runs_per_device=3)
    assert_same(found, whole[1])
    assert (tmp_path / "runs.csv").read_bytes() == (whole[0] / "runs.csv").read_bytes()


@pytest.fixture
def disk(tmp_path):
    """A small disk, and a function that mounts it anew with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        return subprocess.run(command, capture_output=True).returncode == 0

    if os.name != "posix" or not mount("size=64k"):
        pytest.skip("no right to mount a disk")
    yield folder, lambda options: mount(f"remount,{options}")
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_loses_nothing_that_is_stored(whole, disk):
    folder, mount = disk
    with pytest.raises(OSError, match="No space left on device"):
        sweep(Walk(), folder / "out", runs_per_device=1)
    kept = {path.name: path.read_bytes() for path in (folder / "out/partial").glob("*.trained.npz")}
    assert kept
    assert mount("size=8m")
    for name, content in kept.items():
        assert (folder / "out/partial" / name).read_bytes() == content
    assert_same(sweep(Walk(), folder / "out", runs_per_device=1), whole[1])
    assert (folder / "out/runs.csv").read_bytes() == (whole[0] / "runs.csv").read_bytes()


def test_a_folder_that_cannot_be_written_is_left_as_it_is(whole, disk):
    folder, mount = disk
    assert mount("size=8m")
    interrupted(folder / "out")
    before = {path: path.read_bytes() for path in (folder / "out").rglob("*") if path.is_file()}
    assert mount("ro")
    with pytest.raises(OSError, match="Read-only file system"):
        sweep(Walk(), folder / "out", runs_per_device=3)
    assert status(folder / "out").endswith("the command that began it goes on")
    assert {path: path.read_bytes() for path in (folder / "out").rglob("*") if path.is_file()} == before
    assert mount("rw")
    assert_same(sweep(Walk(), folder / "out", runs_per_device=3), whole[1])


def test_a_block_of_another_sweep_counts_as_not_there(whole, tmp_path):
    interrupted(tmp_path)
    (tmp_path / "partial/walker.0-3.trained.npz").replace(tmp_path / "partial/walker.8-11.trained.npz")
    with pytest.warns(UserWarning, match=r"walker\.8-11\.trained\.npz is damaged"):
        assert_same(sweep(Walk(), tmp_path, runs_per_device=3), whole[1])


def test_as_many_runs_as_fit_into_the_memory_are_trained_side_by_side(tmp_path, monkeypatch):
    task = Generation(runs=40, networks=("cwrnn",), sizes=(100,), clips=("choir", "tabla"), epochs=3)
    wanted = sweep(task, tmp_path / "all")
    together = []

    class Noted(Progress):
        def group(self, label, runs):
            together.append(runs)

    for room in (2_000_000, 10**12):
        monkeypatch.setattr(memory, "_available", lambda room=room: room)
        assert_near(sweep(task, tmp_path / str(room), progress=Noted()), wanted)
    assert max(together[:-1]) <= 40
    assert sum(together[:-1]) == together[-1] == 80


@pytest.mark.parametrize("runs_per_device", [0, -1, 1.5, "many"])
def test_runs_per_device_is_a_positive_integer(tmp_path, runs_per_device):
    with pytest.raises(ValueError, match=f"runs_per_device must be an integer, 1 or more, got {runs_per_device!r}"):
        sweep(Walk(), tmp_path, runs_per_device=runs_per_device)


# Pools


def test_threads_serve_as_well(whole, tmp_path):
    with concurrent.futures.ThreadPoolExecutor(2) as workers:
        assert_same(sweep(Walk(), tmp_path, client=workers, runs_per_device=6), whole[1])
    assert not list((tmp_path / "partial").iterdir())


def test_a_pool_goes_on_where_this_process_was_interrupted(whole, tmp_path):
    interrupted(tmp_path)
    logged = []

    class Tracker:
        def init(self, *, config):
            pass

        def log(self, metrics, *, step):
            logged.append((metrics, step))

        def finish(self):
            pass

    with concurrent.futures.ThreadPoolExecutor(1) as workers:
        assert_same(sweep(Walk(), tmp_path, client=workers, runs_per_device=100, callback=Tracker()), whole[1])
    assert len(logged) == 2  # runs 6 to 7, and the rest
    assert set(logged[0][0]) == {f"walker-{rate}/{name}" for rate in (0.5, 0.25) for name in ("error", "diverged")}


def test_what_is_no_pool_is_refused(tmp_path):
    with pytest.raises(ValueError, match="client must be a Dask client or an executor with submit, got 3"):
        sweep(Walk(), tmp_path, client=3)


class Dying(concurrent.futures.Executor):
    """The first workers that are sent to die, and the later ones do as they are told; or the pool is broken."""

    def __init__(self, deaths, error):
        self.deaths, self.error, self.sent = deaths, error, 0

    def submit(self, fn, /, *args, **kwargs):  # pyright: ignore[reportIncompatibleMethodOverride]
        future, self.sent = concurrent.futures.Future(), self.sent + 1
        if self.sent <= self.deaths:
            future.set_exception(self.error)
        else:
            future.set_result(fn(*args, **kwargs))
        return future


class KilledWorker(Exception):  # noqa: N818
    """Named as Dask's."""


def test_a_block_whose_worker_died_is_trained_by_another(whole, tmp_path):
    workers = Dying(3, KilledWorker())
    assert_same(sweep(Walk(), tmp_path, client=workers, runs_per_device=100), whole[1])
    assert workers.sent == 4


def test_a_block_that_ends_every_worker_ends_the_sweep(tmp_path):
    with pytest.raises(PoolError, match=r"the workers of runs 0 to 12 of walker died \(10 times\)"):
        sweep(Walk(), tmp_path, client=Dying(99, KilledWorker()), runs_per_device=100)


def test_a_pool_that_broke_ends_the_sweep(tmp_path):
    with pytest.raises(PoolError, match=r"the workers of runs 0 to 12 of walker died \(1 time\): all gone"):
        sweep(Walk(), tmp_path, client=Dying(1, concurrent.futures.BrokenExecutor("all gone")), runs_per_device=100)


def test_an_error_of_the_task_is_raised_here(tmp_path):
    with pytest.raises(OSError, match="no disk"):
        sweep(Walk(), tmp_path, client=Dying(1, OSError("no disk")), runs_per_device=100)


def test_the_size_of_blocks_follows_the_workers():
    with concurrent.futures.ThreadPoolExecutor(4) as workers:
        pool = Pool(workers)
        assert pool.workers == 4
        assert pool.block_size(100, 1, None) == 25
        assert pool.block_size(100_000, 1, None) == 1000
        assert pool.block_size(100_000, 5, None) == 200
        assert pool.block_size(2, 1, None) == 1
        assert pool.block_size(100, 5, 50) == 10
        assert pool.block_size(100, 5, 1) == 1


SMALL = Generation(runs=20, networks=("cwrnn", "srn"), sizes=(100,), clips=("choir",), epochs=20)


@pytest.mark.filterwarnings("ignore")  # Dask's own
def test_a_dask_cluster_gives_the_same_runs(tmp_path):
    distributed = importlib.import_module("distributed")
    wanted = sweep(SMALL, tmp_path / "alone")
    with distributed.Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        assert Pool(client).workers == 2
        found = sweep(SMALL, tmp_path / "cluster", client=client, runs_per_device=7)
    assert_near(found, wanted)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_in_processes_give_the_same_runs_though_one_is_killed(tmp_path, workers):
    distributed = importlib.import_module("distributed")
    task = dataclasses.replace(SMALL, runs=100, epochs=100)
    wanted = sweep(task, tmp_path / "alone")
    cluster = distributed.LocalCluster(workers, threads_per_worker=1, dashboard_address=None)
    killed = []

    class Killer(Progress):
        """Kills a worker once the first block is there."""

        def advance(self, epochs, diverged=0):
            if epochs and not killed:
                nanny = next(iter(cluster.workers.values()))
                killed.append(nanny.pid)
                os.kill(nanny.pid, signal.SIGKILL)

    with cluster, distributed.Client(cluster) as client:
        found = sweep(task, tmp_path / "cluster", client=client, runs_per_device=25, progress=Killer())
    assert killed
    assert_near(found, wanted, rtol=1e-4)


@pytest.mark.slow
def test_killed_at_random_moments_a_sweep_loses_nothing(tmp_path):
    """``CLOCKWORK_FAULTS=100 pytest -m slow tests/test_blocks.py`` for the long battery."""
    command = "generation --runs 30 --networks cwrnn --sizes 100 --clips choir tabla --epochs 300 --runs-per-device 10"
    start = "import importlib, sys; importlib.import_module('clockwork.training.group').SAVE_EVERY = 0\n"
    start += "from clockwork.cli import main; sys.exit(main(sys.argv[1:]))"

    def begun(folder):
        words = [sys.executable, "-c", start, *command.split(), "--out", str(folder)]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    began = time.monotonic()
    alone = begun(tmp_path / "alone")
    said, _ = alone.communicate()
    assert alone.returncode == 0, said
    took = time.monotonic() - began
    drawn = random.Random(0)
    for _ in range(int(os.environ.get("CLOCKWORK_FAULTS", "4"))):
        process = begun(tmp_path / "killed")
        assert process.stdout is not None
        process.stdout.readline()  # Python itself answers Ctrl-C while it starts
        time.sleep(drawn.uniform(0, took))
        process.send_signal(drawn.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        said, _ = process.communicate()
        assert "Traceback" not in said, said
    process = begun(tmp_path / "killed")
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert (tmp_path / "killed/runs.csv").read_bytes() == (tmp_path / "alone/runs.csv").read_bytes()


def test_status_of_what_is_no_results_folder(tmp_path):
    with pytest.raises(FolderError, match="holds no results"):
        status(tmp_path)


@pytest.mark.slow
def test_each_process_of_a_job_of_several_trains_on_its_own_devices(tmp_path):
    code = (
        "import sys, jax\n"
        "number, address, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]\n"
        "jax.distributed.initialize(address, 2, number)\n"
        "from clockwork.tasks import Generation\n"
        "from clockwork.training import sweep\n"
        "assert len(jax.devices()) == 2 * len(jax.local_devices())\n"
        "options = dict(runs=3, networks=('cwrnn',), sizes=(100,), clips=('choir',), epochs=20)\n"
        "sweep(Generation(**options, seed=number), folder)\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(i), address, str(tmp_path / str(i))], stderr=subprocess.PIPE)
        for i in range(2)
    ]
    for process in both:
        said = process.communicate()[1]
        assert process.returncode == 0, said
    for seed in range(2):
        (found,) = open_results(tmp_path / str(seed)).conditions.values()
        task = dataclasses.replace(SMALL, runs=3, networks=("cwrnn",), seed=seed)
        (wanted,) = sweep(task, tmp_path / f"alone{seed}").conditions.values()
        np.testing.assert_allclose(found.error, wanted.error, rtol=1e-5)
