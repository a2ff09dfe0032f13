"""Every row of the published PASCAL-Context table with Swin-T in one code base, and the controls that it lacks; three seeds.

    python run_suite.py params table1 --backbone swin_tiny_patch4_window7_224 --img-size 448
    python run_suite.py run table1 --data-root DIR

The first needs neither data nor weights. The second trains 38 rows, 213 trials of 300 epochs at batch 32 in bf16; `plan table1
--data-root DIR` estimates the time on this machine. Adapter, BitFit, VPT, Compacter and LoRA are one model a task, as published; the rest
serve all tasks. The controls give the shared forms of LoRA and adapters what MTLoRA trains: the same number of parameters, or the same part
of the backbone.
"""

import dataclasses

from bench.budget import at_budget
from bench.config import BackboneConfig, DataConfig, RecipeConfig, TrialConfig
from bench.model.backbone import shape_of
from bench.suites import Row, Suite, multi_task_row, row_of, single_task_row
from bench.training.optim import release_lrs
from methods import METHODS
from methods.frozen import FrozenConfig
from methods.shape import Shape

DATA = DataConfig(source="pascal_context")
REFERENCE = "Single-task full fine-tuning"
RANKS = (16, 32, 64)
PLUS_RANKS = ((4, 4), (8, 8), (16, 16), (16, 4), (32, 4), (64, 4))
MTLORA_TRAINS = ("norm", "relative_position", "patch_embed", "patch_merging")


def there(shape: Shape, groups: tuple[str, ...]) -> tuple[str, ...]:
    """Return those groups of a backbone's own parameters that it has: all on Swin; a ViT, say, has no relative positions."""
    return tuple(group for group in groups if shape.own((group,)))


def published_rows(base: TrialConfig, seeds: tuple[int, ...], shape: Shape) -> tuple[Row, ...]:
    """Return the rows of the published tables."""
    trains, kinds = there(shape, MTLORA_TRAINS), {layer.kind for layer in shape.layers}
    plus = {"also_train": tuple(group for group in trains if group != "patch_merging")}
    plus |= {} if "reduction" in kinds else {"layers": ("qkv", "proj", "fc1", "fc2")}
    a_task = (
        ("Adapter", "adapter", {"reduction": 4}),
        ("BitFit", "bitfit", {"also_train": there(shape, ("relative_position",))}),
        ("VPT-shallow", "vpt_shallow", {"prompts": 50}),
        ("VPT-deep", "vpt", {"prompts": 50}),
        ("Compacter", "compacter", {}),
        ("Compacter++", "compacter_plus_plus", {}),
        ("LoRA (r=4, one a task)", "lora_attention", {"rank": 4, "factor_bias": True}),
    )
    return (
        single_task_row(base, "full", seeds, label=REFERENCE),
        multi_task_row(base, "full", seeds, label="Multi-task full fine-tuning"),
        multi_task_row(base, "frozen", seeds),
        *(single_task_row(base, method, seeds, label=label, **dials) for label, method, dials in a_task),
        multi_task_row(base, "adapter", seeds, label="VL-Adapter", reduction=4, also_train=("norm",)),
        multi_task_row(base, "hyperformer", seeds, label="HyperFormer"),
        multi_task_row(base, "polyhistor", seeds, label="Polyhistor"),
        multi_task_row(base, "polyhistor_lite", seeds, label="Polyhistor-Lite"),
        *(multi_task_row(base, "mtlora", seeds, rank=rank, task_rank=4, also_train=trains) for rank in RANKS),
        *(
            multi_task_row(
                base, "mtlora_plus", seeds, label=f"MTLoRA+ (r={rank}, task r={task_rank})", rank=rank, task_rank=task_rank, **plus
            )
            for rank, task_rank in PLUS_RANKS
        ),
    )


def control_rows(base: TrialConfig, seeds: tuple[int, ...], shape: Shape, rank: int) -> tuple[Row, ...]:
    """Return what else MTLoRA's parameters at this rank could have been spent on: dials as large as fit."""
    trains = there(shape, MTLORA_TRAINS)
    budget, name = METHODS["mtlora"].config(rank=rank, task_rank=4, also_train=trains).trainable(shape), f"MTLoRA r={rank}"
    single = dataclasses.replace(shape, tasks=1)
    lora, adapter = METHODS["lora"].config, METHODS["adapter"].config
    shared = at_budget(lora(), "rank", budget, shape)
    with_rest = at_budget(lora(also_train=trains), "rank", budget, shape)
    wide = at_budget(adapter(width=1), "width", budget, shape)
    own = at_budget(lora(), "rank", budget, single, copies=len(base.tasks))
    return (
        row_of(base, "lora", shared, seeds, label=f"Shared LoRA at {name} (r={shared.rank})"),
        row_of(base, "lora", with_rest, seeds, label=f"Shared LoRA + MTLoRA's trainable rest at {name} (r={with_rest.rank})"),
        row_of(base, "adapter", wide, seeds, label=f"Shared Adapter at {name} (w={wide.width})"),
        row_of(base, "lora", own, seeds, label=f"LoRA, one a task, at {name} (r={own.rank})", one_a_task=True),
    )


def suite(
    data: DataConfig = DATA,
    seeds: tuple[int, ...] = (0, 1, 2),
    backbone: str = "swin_tiny_patch4_window7_224",
    image_size: int = 448,
) -> Suite:
    """Return the table."""
    base = TrialConfig(
        method_name="frozen",
        method=FrozenConfig(),
        data=data,
        tasks=data.default_tasks,
        backbone=BackboneConfig(name=backbone, weights="timm", drop_path=0.2),
        recipe=RecipeConfig(batch_size=32, precision="bf16", image_size=image_size, **release_lrs(32)._asdict()),
    )
    shape = shape_of(backbone, image_size=image_size, tasks=len(base.tasks))
    trains = there(shape, MTLORA_TRAINS)
    same_rank = (
        multi_task_row(base, "lora", seeds, label="Shared LoRA (r=16)", rank=16),
        multi_task_row(base, "lora", seeds, label="Shared LoRA (r=16) + MTLoRA's trainable rest", rank=16, also_train=trains),
        multi_task_row(base, "frozen", seeds, label="MTLoRA's trainable rest alone", also_train=trains),
    )
    controls = tuple(row for rank in RANKS for row in control_rows(base, seeds, shape, rank))
    return Suite(
        name="table1",
        title="PASCAL-Context: the published table and its controls",
        description=__doc__,
        rows=(*published_rows(base, seeds, shape), *same_rank, *controls),
        reference=REFERENCE,
        notes=(
            "MTLoRA's trainable rest: norms, relative positions, patch embedding and patch merging, as far as the backbone has them.",
            "'at MTLoRA r': the largest dial whose trainable parameters, decoders aside, do not exceed those of MTLoRA.",
        ),
    )
