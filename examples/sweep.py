"""The paper's first experiment from Python: the same sweep, table and figures as ``clockwork generation``."""

import sys

from clockwork.report import table, write_report
from clockwork.tasks import Generation
from clockwork.training import sweep, use_all_cores

use_all_cores()  # as devices; before anything that starts JAX
folder = sys.argv[1] if len(sys.argv) > 1 else "results/example-sweep"
task = Generation(runs=4, networks=("lstm", "cwrnn"), sizes=(100,), clips=("choir", "mika"), epochs=200)
results = sweep(task, folder)
write_report(results, folder)
print(table(results))

# Every run is there, not only the table:
for condition, result in results.conditions.items():
    print(condition.network, condition.data, "NMSE of each run:", result.error.round(3))
