"""Four rows on a handful of images: shows in a minute that the pipeline runs. Its numbers mean nothing.

    python run_suite.py run smoke

Single-task and multi-task full fine-tuning, decoders only, and MTLoRA; one seed, seven trials; random weights, so that no file is needed.
"""

from bench.config import BackboneConfig, DataConfig, RecipeConfig, TrialConfig
from bench.data.synthetic import SyntheticConfig
from bench.suites import Suite, multi_task_row, single_task_row
from methods.frozen import FrozenConfig

DATA = DataConfig(source="synthetic", synthetic=SyntheticConfig(n_train=8, n_val=5, size=48, seed=3))
RECIPE = RecipeConfig(epochs=3, warmup_epochs=1, batch_size=2, image_size=32, peak_lr=1e-3, warmup_lr=1e-6, min_lr=1e-5)


def suite(data: DataConfig = DATA, seeds: tuple[int, ...] = (0,)) -> Suite:
    """Return the smoke test."""
    base = TrialConfig(
        method_name="frozen",
        method=FrozenConfig(),
        data=data,
        tasks=data.default_tasks,
        backbone=BackboneConfig(name="swin_micro_patch4_window4_64", weights="scratch", drop_path=0.1),
        decoder_channels=(4, 4, 8, 8),
        recipe=RECIPE,
    )
    reference = "Single-task full fine-tuning"
    rows = (
        single_task_row(base, "full", seeds, label=reference),
        multi_task_row(base, "full", seeds, label="Multi-task full fine-tuning"),
        multi_task_row(base, "frozen", seeds),
        multi_task_row(base, "mtlora", seeds, rank=2, task_rank=2),
    )
    notes = ("A smoke test: random weights, eight training images. Its numbers mean nothing.",)
    return Suite(name="smoke", title="Smoke test: does the pipeline run?", description=__doc__, rows=rows, reference=reference, notes=notes)
