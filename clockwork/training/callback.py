"""Logging to an experiment tracker."""

from typing import Any, Protocol


class Callback(Protocol):
    """The interface of an experiment tracker. A sweep calls ``init`` once, ``log`` often, and ``finish`` at the end.

    The modules ``wandb`` and ``trackio`` have these functions, so ``sweep(task, out, callback=wandb)`` works. For
    TensorBoard, use `TensorBoard`.

    Example:
        >>> from clockwork.training import sweep
        >>> from clockwork.tasks import Generation
        >>> class Print:
        ...     def init(self, config):
        ...         print(config["task"])
        ...
        ...     def log(self, metrics, step):
        ...         print(step, sorted(metrics))
        ...
        ...     def finish(self):
        ...         print("done")
        >>> task = Generation(runs=2, networks=("cwrnn",), sizes=(100,), clips=("choir",), epochs=5)
        >>> results = sweep(task, "results/generation", callback=Print())  # nothing is left to train
        generation
        done
    """

    def init(self, *, config: dict[str, Any]) -> Any:
        """Called when the sweep begins.

        Args:
            config: the settings of the task, as in ``config.json``.
        """

    def log(self, metrics: dict[str, float], *, step: int) -> Any:
        """Called after some epochs.

        Args:
            metrics: for each condition in training, the median over its runs of the watched error as
                ``NAME/error``, how many runs have diverged as ``NAME/diverged``, and how many are still training as
                ``NAME/training``.
            step: the number of epochs that the sweep has trained, summed over its groups.
        """

    def finish(self) -> Any:
        """Called when the sweep has ended or was interrupted."""


class TensorBoard:
    """A `Callback` for a writer with ``add_scalar(tag, value, step)`` and ``close()``.

    Args:
        writer: such as ``torch.utils.tensorboard.SummaryWriter`` or ``tensorboardX.SummaryWriter``.

    Example:
        >>> class Writer:
        ...     def add_scalar(self, tag, value, step):
        ...         print(tag, value, step)
        ...
        ...     def close(self):
        ...         pass
        >>> TensorBoard(Writer()).log({"gru-0.01/error": 0.5}, step=50)
        gru-0.01/error 0.5 50
    """

    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def init(self, *, config: dict[str, Any]) -> None:
        """Does nothing: a writer of scalars keeps no configuration."""

    def log(self, metrics: dict[str, float], *, step: int) -> None:
        """Write each figure as a scalar."""
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def finish(self) -> None:
        """Close the writer."""
        self.writer.close()
