"""Train the blocks of a sweep by several worker processes: of this machine, or as jobs of Slurm through submitit.

python examples/many_workers.py results/many
python examples/many_workers.py results/many --submitit    # jobs of Slurm; processes where there is no Slurm
"""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from clockwork.tasks import Generation
from clockwork.training import for_output, sweep


@contextmanager
def workers(folder, of_submitit):
    """An executor: anything with ``submit`` as that of ``concurrent.futures``."""
    if of_submitit:
        import submitit

        jobs = submitit.AutoExecutor(f"{folder}-jobs")
        jobs.update_parameters(timeout_min=60, cpus_per_task=1)
        yield jobs
    else:  # "spawn", since JAX runs threads, which a fork would lose
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield pool


if __name__ == "__main__":
    folder = sys.argv[1]
    task = Generation(runs=20, networks=("cwrnn",), sizes=(100,), clips=("choir",), epochs=100)
    with workers(folder, "--submitit" in sys.argv) as pool:
        results = sweep(task, folder, client=pool, runs_per_device=10, progress=for_output())
    for condition, result in results.conditions.items():
        print(
            f"{condition.name}: NMSE {result.error.mean():.3f}, {result.diverged.sum()} of {len(result.error)} diverged"
        )
