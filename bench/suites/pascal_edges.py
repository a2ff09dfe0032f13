"""As `pascal`, with edges as the fifth task: odsF of boundaries between the parts of LabelMap.

    python run_suite.py run pascal_edges --data-root DIR

Thirteen rows, 51 trials. The published tables have four tasks; delta_m over five is another number than theirs. Evaluating edges takes 0.2
to 0.6 seconds an image and core besides, once a trial.
"""

from bench.config import DataConfig
from bench.suites import Suite
from bench.suites.demo import NOTES, REFERENCE
from bench.suites.pascal import DATA, base_trial, rows_of
from bench.tasks import TASKS


def suite(data: DataConfig = DATA, seeds: tuple[int, ...] = (0, 1, 2)) -> Suite:
    """Return the comparison."""
    tasks = tuple(task for task in TASKS if task in (*data.default_tasks, "edges"))
    return Suite(
        name="pascal_edges",
        title="PASCAL-Context with edges, Swin-T",
        description=__doc__,
        rows=rows_of(base_trial(data, tasks), seeds),
        reference=REFERENCE,
        notes=NOTES,
    )
