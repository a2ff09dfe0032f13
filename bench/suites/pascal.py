"""The client's methods on PASCAL-Context with Swin-T at 448 px, by the MTLoRA release's recipe, three seeds.

    python run_suite.py run pascal --data-root DIR

DIR is the PASCAL_MT directory. Thirteen rows, 48 trials of 300 epochs at batch 32, bf16. timm downloads the ImageNet-1k weights; without a
network give them with `--weights FILE`. `plan pascal --data-root DIR` measures steps on this machine and estimates the time. The release
reports one run of MTLoRA r = 64 with delta_m +2.55 against published single-task references; here the references are trained as well.
"""

from bench.config import BackboneConfig, DataConfig, RecipeConfig, TrialConfig
from bench.suites import Row, Suite
from bench.suites.demo import NOTES, REFERENCE, client_rows
from bench.training.optim import release_lrs
from methods.frozen import FrozenConfig

DATA = DataConfig(source="pascal_context")


def base_trial(data: DataConfig, tasks: tuple[str, ...]) -> TrialConfig:
    """Return the trial that all rows are variants of."""
    return TrialConfig(
        method_name="frozen",
        method=FrozenConfig(),
        data=data,
        tasks=tasks,
        backbone=BackboneConfig(name="swin_tiny_patch4_window7_224", weights="timm", drop_path=0.2),
        recipe=RecipeConfig(batch_size=32, precision="bf16", **release_lrs(32)._asdict()),
    )


def rows_of(base: TrialConfig, seeds: tuple[int, ...]) -> tuple[Row, ...]:
    """Return the client's rows at the ranks of the paper."""
    return client_rows(base, seeds, reference=REFERENCE, ranks=(16, 32, 64), plus_rank=16, prompts=50)


def suite(data: DataConfig = DATA, seeds: tuple[int, ...] = (0, 1, 2)) -> Suite:
    """Return the comparison."""
    rows = rows_of(base_trial(data, data.default_tasks), seeds)
    return Suite(name="pascal", title="PASCAL-Context, Swin-T", description=__doc__, rows=rows, reference=REFERENCE, notes=NOTES)
