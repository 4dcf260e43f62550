"""The paper's results, to stand beside ours: Table 2, where it may be shown, and what networks are compared at."""

import numpy as np

from clockwork.report import Column
from clockwork.report.aggregate import Row, best_rows, networks
from clockwork.tasks.paper import LABELS, Experiment
from clockwork.training import Results


def papers_data(results: Results, recordings: object) -> bool:
    """Whether the paper's figures may stand beside these: of its 25 words in TIMIT, or of the embedded data.

    Args:
        results: of a sweep.
        recordings: of one's own that the task learns in place of the embedded data; None or empty if there are none.
    """
    if not recordings:
        return True
    data = [result.data for result in results.conditions.values()]
    return bool(data) and all(bool(one.get("paper_data", False)) for one in data)


def units_column(task: Experiment) -> Column:
    """The hidden units, or LSTM cells, of each network of Table 1."""
    return Column("units", lambda row: str(task.units_of(row.network, row.size)), after="size")


def paper_column(task: Experiment, header: str, form: str, factor: float = 1) -> Column:
    """Table 2, beside the largest networks: mean and sd, each times a factor, in a form such as ``"{} ± {}"``."""

    def published(row: Row) -> str:
        if row.network not in task.published or row.size != max(task.units):
            return ""
        return form.format(*(factor * figure for figure in task.published[row.network]))

    return Column(header, published)


def compared(results: Results, needed: str | None = None) -> tuple[int, dict[str, np.ndarray]]:
    """The errors of the runs that did not diverge, by network, at the largest size where networks can be compared.

    Args:
        results: of a sweep.
        needed: a network that must be among them.

    Returns:
        The size and the errors; size 0 and no errors if there is no size of which two networks or more are finished,
        each with a run that did not diverge.
    """
    best = best_rows(results)
    for size in sorted({size for _, size in best}, reverse=True):
        errors = {name: best[name, size].converged for name in networks(results, LABELS) if (name, size) in best}
        if len(errors) > 1 and (needed is None or needed in errors) and all(e.size for e in errors.values()):
            return size, errors
    return 0, {}
