"""Streams (methods.base): dim 0 of activations is `(S * B, ...)`, stream-major, S = 1 (shared), T (one a task) or 1 + T (shared first)."""

from collections.abc import Iterable

from torch import Tensor


def task_stream(task_index: int, streams: int, tasks: int) -> int:
    """Return which stream feeds a task: 1 stream serves all, T are one a task, 1 + T have the shared one first.

    Raises:
        ValueError: For any other number of streams.
    """
    if streams == 1:
        return 0
    if streams in (tasks, 1 + tasks):
        return task_index + streams - tasks
    raise ValueError(f"a stage returned {streams} streams for {tasks} tasks; a method may use 1, {tasks} or {1 + tasks}")


def add_streams(residual: Tensor, update: Tensor) -> Tensor:
    """Add `(S1 * B, ...)` and `(S2 * B, ...)`, S1 and S2 equal or one of them 1, which then goes to every stream of the other."""
    streams = max(len(residual), len(update))
    return repeat_streams(residual, streams) + repeat_streams(update, streams)


def repeat_streams(x: Tensor, length: int) -> Tensor:
    """Repeat dim 0 up to `length`, stream-major."""
    return x if len(x) == length else x.repeat(length // len(x), *[1] * (x.ndim - 1))


def hand_out(x: Tensor, images: int, pyramids: Iterable[list[Tensor]]) -> Tensor:
    """End a stage: give each task's pyramid its stream's map, and return what goes on.

    Args:
        x: (S * B, h, w, C), the stage's output.
        images: B.
        pyramids: One list a task, in the order of the task streams; each gets a map (B, C, h, w).

    Returns:
        The shared stream, (B, h, w, C), where there is one beside the tasks'; else `x`.
    """
    streams, pyramids = x.unflatten(0, (-1, images)), list(pyramids)
    for t, maps in enumerate(pyramids):
        maps.append(streams[task_stream(t, len(streams), len(pyramids))].permute(0, 3, 1, 2))
    return streams[0] if len(streams) == 1 + len(pyramids) else x
