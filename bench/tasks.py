"""The task table: one row a dense-prediction task; and which tasks a data set has labels for. No torch.

Channels, ignore value, loss weight and headline metric follow the PASCAL-Context multi-task protocol of the MTLoRA release
(arXiv 2403.20320), depth and NYUD-v2 that of its relatives (Maninis et al., arXiv 1904.08918). What a task's label looks like, and where
a pixel does not count, follows from its kind:

| kind | in the data set, and in a batch | ignored where |
|---|---|---|
| classes | uint8 (h, w) class ids; (B, H, W) | 255 |
| binary | uint8 (h, w), 0 or 1; (B, H, W) | 255 |
| normals | float32 (h, w, 3) unit vectors; (B, 3, H, W) | zero vector; in a batch 255 in all channels |
| depth | float32 (h, w) metres; (B, 1, H, W) | 0 |
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

IGNORE = 255
LABEL_KINDS = ("classes", "binary", "normals", "depth")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One dense-prediction task.

    Attributes:
        name: Key used in configurations, records, state dicts and file names.
        title: Column head of a printed table.
        label: Kind of its label, see the table above.
        channels: Number of the decoder's output channels.
        loss_weight: Weight of the task's loss in the total loss.
        metric: Key of the headline metric, the one that enters delta_m.
        metric_title: The metric's name as papers print it.
        unit: Unit of the headline metric.
        higher_is_better: Direction of the headline metric.
        published_reference: Headline metric of single-task full fine-tuning, Swin-T, that published delta_m values divide by; None where
            none is published.
        tolerance: For edges: how far a predicted edge may lie from a labelled one, as a share of the image's diagonal; None elsewhere.
    """

    name: str
    title: str
    label: str
    channels: int
    loss_weight: float
    metric: str
    metric_title: str
    unit: str
    higher_is_better: bool
    published_reference: float | None = None
    tolerance: float | None = None


TASKS = {
    task.name: task
    for task in (
        Task(
            name="semseg",
            title="SemSeg",
            label="classes",
            channels=21,
            loss_weight=1.0,
            metric="miou",
            metric_title="mIoU",
            unit="%",
            higher_is_better=True,
            published_reference=67.21,
        ),
        Task(
            name="human_parts",
            title="Human Parts",
            label="classes",
            channels=7,
            loss_weight=2.0,
            metric="miou",
            metric_title="mIoU",
            unit="%",
            higher_is_better=True,
            published_reference=61.93,
        ),
        Task(
            name="saliency",
            title="Saliency",
            label="binary",
            channels=1,
            loss_weight=5.0,
            metric="miou",
            metric_title="mIoU",
            unit="%",
            higher_is_better=True,
            published_reference=62.35,
        ),
        Task(
            name="normals",
            title="Normals",
            label="normals",
            channels=3,
            loss_weight=10.0,
            metric="mean_deg",
            metric_title="mErr",
            unit="°",
            higher_is_better=False,
            published_reference=17.97,
        ),
        Task(
            name="edges",
            title="Edges",
            label="binary",
            channels=1,
            loss_weight=50.0,
            metric="odsf",
            metric_title="odsF",
            unit="%",
            higher_is_better=True,
            tolerance=0.0075,
        ),
        Task(
            name="depth",
            title="Depth",
            label="depth",
            channels=1,
            loss_weight=1.0,
            metric="rmse_m",
            metric_title="RMSE",
            unit="m",
            higher_is_better=False,
        ),
    )
}
PASCAL_TASKS = ("semseg", "human_parts", "saliency", "normals")
"""What a trial trains on unless it says otherwise: the four tasks of the published table. Edges are asked for by name."""

NYUD_TASKS = ("semseg", "normals", "depth", "edges")
TASK_NAMES = PASCAL_TASKS

DATA_SETS: Mapping[str, Mapping[str, Task]] = {
    "pascal_context": {name: TASKS[name] for name in (*PASCAL_TASKS, "edges")},
    "nyud": {
        "semseg": replace(TASKS["semseg"], channels=40, published_reference=None),
        "normals": replace(TASKS["normals"], published_reference=None),
        "depth": TASKS["depth"],
        "edges": replace(TASKS["edges"], tolerance=0.011),
    },
}
"""The tasks that a data set has labels for, as they are there: NYUD-v2 has forty classes and grants edges a wider tolerance."""

DEFAULT_TASKS: Mapping[str, tuple[str, ...]] = {"pascal_context": PASCAL_TASKS, "nyud": NYUD_TASKS}
