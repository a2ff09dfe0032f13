"""The task table: one row a dense-prediction task. No torch.

Channels, ignore value, loss weight and headline metric follow the PASCAL-Context multi-task protocol of the MTLoRA release
(arXiv 2403.20320). Labels carry `IGNORE` (255) where a pixel does not count: in the single label channel of semseg, human_parts and
saliency, in all three channels of normals.
"""

from dataclasses import dataclass

IGNORE = 255


@dataclass(frozen=True, kw_only=True)
class Task:
    """One dense-prediction task.

    Attributes:
        name: Key used in configurations, records, state dicts and file names.
        title: Column head of a printed table.
        channels: Number of the decoder's output channels.
        loss_weight: Weight of the task's loss in the total loss.
        metric: Key of the headline metric, the one that enters delta_m.
        metric_title: The metric's name as papers print it.
        unit: Unit of the headline metric.
        higher_is_better: Direction of the headline metric.
        published_reference: Headline metric of single-task full fine-tuning, Swin-T, that published delta_m values divide by.
    """

    name: str
    title: str
    channels: int
    loss_weight: float
    metric: str
    metric_title: str
    unit: str
    higher_is_better: bool
    published_reference: float


TASKS = {
    task.name: task
    for task in (
        Task(
            name="semseg",
            title="SemSeg",
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
            channels=3,
            loss_weight=10.0,
            metric="mean_deg",
            metric_title="mErr",
            unit="°",
            higher_is_better=False,
            published_reference=17.97,
        ),
    )
}
TASK_NAMES = tuple(TASKS)
