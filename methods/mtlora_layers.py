"""MTLoRA's layers: a linear layer with a shared pair and one a task, and attention over streams; `methods.mtlora` places them."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from methods.lora import lora_pair


class MTLoRALinear(nn.Module):
    """A frozen linear layer with a shared low-rank pair and one pair a task.

    Maps `(S_in * B, ..., in)` to `(S_out * B, ..., out)`, stream-major; `S_in = streams_in` is 1 or 1 + T, and S_out is 1 + T, or 1 where
    `ranks` is empty. `ranks` and `scales` map a task to its rank and scale. Rank 0 leaves a pair out, but not the task's stream.
    """

    def __init__(
        self, linear: nn.Linear, rank: int, ranks: Mapping[str, int], scale: float, scales: Mapping[str, float],
        dropout: float, mode: str, streams_in: int, trainable_scale: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.linear, self.mode, self.streams_in = linear, mode, streams_in
        self.tasks = tuple(ranks)  # in the order of the streams; a ParameterDict sorts its keys
        self.dropout = nn.Dropout(dropout)
        shared = rank > 0 and (mode != "addition" or not ranks)
        self.lora_A, self.lora_B = lora_pair(linear, rank) if shared else (None, None)
        self.scale = nn.Parameter(linear.weight.new_tensor(scale)) if shared and trainable_scale else scale
        pairs = {task: lora_pair(linear, task_rank) for task, task_rank in ranks.items() if task_rank > 0}
        self.task_A = nn.ParameterDict({task: a for task, (a, _) in pairs.items()})
        self.task_B = nn.ParameterDict({task: b for task, (_, b) in pairs.items()})
        if trainable_scale:
            self.task_scale = nn.ParameterDict({task: nn.Parameter(linear.weight.new_tensor(scales[task])) for task in pairs})
        else:
            self.register_buffer("task_scale", linear.weight.new_tensor([scales[task] for task in ranks]), persistent=False)
        self.norm = nn.LayerNorm(linear.out_features) if mode == "addition" and ranks else None

    def forward(self, x: Tensor) -> Tensor:
        streams = x.reshape(self.streams_in, -1, x.shape[-1])
        shared, own = streams[0], streams[1:]
        base, dropped = self.linear(shared), self.dropout(shared)
        update = 0 if self.lora_A is None else self.scale * (dropped @ self.lora_A.T @ self.lora_B.T)
        outputs = [(base + update)[None]]
        if self.tasks:
            a, b, scale = self.stacked()
            delta = torch.bmm(torch.bmm(own if len(own) else dropped.expand(len(a), -1, -1), a), b)
            delta = scale.to(delta.dtype) * delta  # fp32 would lift an autocast stream to fp32
            tasks = base + delta + (update if self.mode == "matrixv2" else 0)
            if self.norm is not None:
                outputs = [(base + self.norm(tasks.sum(0)))[None]]
            outputs.append(tasks)
        return torch.cat(outputs).reshape(-1, *x.shape[1:-1], base.shape[-1])

    def stacked(self) -> tuple[Tensor, Tensor, Tensor]:
        """Stack the tasks' pairs, zero-padded to the largest rank R: A^T (T, in, R), B^T (T, R, out) and scales (T, 1, 1)."""
        weight = self.linear.weight
        no_a, no_b = weight.new_zeros(0, self.linear.in_features), weight.new_zeros(self.linear.out_features, 0)
        a = pad_sequence([self.task_A.get(task, no_a) for task in self.tasks], batch_first=True)
        b = pad_sequence([self.task_B.get(task, no_b).T for task in self.tasks], batch_first=True)
        scale = self.task_scale
        if isinstance(scale, nn.ParameterDict):
            scale = torch.stack([scale.get(task, weight.new_zeros(())) for task in self.tasks])
        return a.mT, b, scale.view(-1, 1, 1)


class StreamAttention(nn.Module):
    """Swin's attention whose qkv returns more or fewer streams than it gets: timm's own counts the windows before qkv, so qkv goes first.

    Maps `(S_in * B * windows, N, C)` to `(S_out * B * windows, N, C)`, as qkv and proj make it.
    """

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.qkv, self.attention = attention.qkv, attention
        attention.qkv = nn.Identity()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend; `mask` is additive, (windows, N, N), or None."""
        return self.attention(self.qkv(x), mask)
