"""Does pretraining matter? Full fine-tuning and decoders only, each from the demo's backbone and from random weights.

    python run_suite.py run pretraining

Four rows, three seeds, twelve multi-task trials on the demo's data; by the demo's recipe, but longer, for it need not end in minutes: eight
epochs, and the lower peak rate that goes with them. Three or four minutes on two cores.
If the benchmark measures transfer, the pretrained rows lead on every task, and decoders only stays behind full fine-tuning. The table says
whether that holds.
"""

import dataclasses

from bench.config import DataConfig
from bench.suites import Suite, multi_task_row
from bench.suites.demo import DATA, RECIPE, base_trial

LONGER = dataclasses.replace(RECIPE, epochs=8, peak_lr=1e-3)


def suite(data: DataConfig = DATA, seeds: tuple[int, ...] = (0, 1, 2)) -> Suite:
    """Return the comparison of pretrained and random backbones."""
    reference = "Full fine-tuning, from scratch"
    starts = {
        start: dataclasses.replace(base_trial(data, weights=weights), recipe=LONGER)
        for start, weights in (("pretrained", "demo"), ("from scratch", "scratch"))
    }
    rows = tuple(
        multi_task_row(base, method, seeds, label=f"{title}, {start}")
        for method, title in (("full", "Full fine-tuning"), ("frozen", "Decoders only"))
        for start, base in starts.items()
    )
    return Suite(
        name="pretraining",
        title="Does pretraining matter?",
        description=__doc__,
        rows=rows,
        reference=reference,
        notes=("Same data, recipe and seeds in all rows; only the backbone's first weights and what trains differ.",),
    )
