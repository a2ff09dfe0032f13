"""The client's methods on synthetic PASCAL-Context and a 1.7 M-parameter Swin: the whole pipeline in minutes on two cores.

    python run_suite.py run demo

Thirteen rows, three seeds, 48 trials, one common recipe. It shows that the pipeline works and how its output reads. It is no evidence about
the methods on photographs: images, labels and the backbone's pretraining are rendered, at 64 px, and five epochs are what fits into ten
minutes. Their peak learning rate was chosen on another rendered set (seed 7), by what full fine-tuning, decoders only, LoRA and MTLoRA
reach there.
"""

from bench.config import BackboneConfig, DataConfig, RecipeConfig, TrialConfig
from bench.data.synthetic import SyntheticConfig
from bench.suites import Row, Suite, multi_task_row, single_task_row
from methods.frozen import FrozenConfig

DATA = DataConfig(source="synthetic", synthetic=SyntheticConfig(n_train=240, n_val=100, size=96, seed=0))
RECIPE = RecipeConfig(
    epochs=5,
    warmup_epochs=1,
    batch_size=8,
    image_size=64,
    peak_lr=2e-3,
    warmup_lr=1e-6,
    min_lr=1e-5,
    rotation=10.0,
)
REFERENCE = "Single-task full fine-tuning"
NOTES = (
    "LoRA, Adapter and VPT are shared by all tasks here.",
    "Only MTLoRA and MTLoRA+ also train norms, relative positions and patch embedding; MTLoRA trains the patch merging too.",
)


def base_trial(data: DataConfig, weights: str = "demo") -> TrialConfig:
    """Return a trial of the demo's data, recipe and backbone; rows change its method."""
    return TrialConfig(
        method_name="frozen",
        method=FrozenConfig(),
        data=data,
        tasks=data.default_tasks,
        backbone=BackboneConfig(name="swin_micro_patch4_window4_64", weights=weights, drop_path=0.05),
        decoder_channels=(8, 12, 16, 24),
        recipe=RECIPE,
    )


def client_rows(
    base: TrialConfig, seeds: tuple[int, ...], *, reference: str, ranks: tuple[int, ...], plus_rank: int, prompts: int
) -> tuple[Row, ...]:
    """Return the rows that the client named, the reference first."""
    return (
        single_task_row(base, "full", seeds, label=reference),
        multi_task_row(base, "full", seeds, label="Multi-task full fine-tuning"),
        multi_task_row(base, "frozen", seeds),
        *(multi_task_row(base, "lora", seeds, rank=rank) for rank in ranks),
        *(multi_task_row(base, "adapter", seeds, reduction=reduction) for reduction in (8, 4)),
        multi_task_row(base, "vpt", seeds, prompts=prompts),
        *(multi_task_row(base, "mtlora", seeds, rank=rank) for rank in ranks),
        multi_task_row(base, "mtlora_plus", seeds, rank=plus_rank),
    )


def suite(data: DataConfig = DATA, seeds: tuple[int, ...] = (0, 1, 2)) -> Suite:
    """Return the demo."""
    return Suite(
        name="demo",
        title=f"Demo: the client's methods on {'synthetic ' if data.source == 'synthetic' else ''}PASCAL-Context",
        description=__doc__,
        rows=client_rows(base_trial(data), seeds, reference=REFERENCE, ranks=(4, 8, 16), plus_rank=8, prompts=10),
        reference=REFERENCE,
        notes=NOTES,
    )
