"""What a closed form of parameters needs to know of a backbone: its widths, its linear layers, and its own parameters by group."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A linear layer that a method may rewire.

    Attributes:
        kind: Key of `methods.base.LAYERS`.
        stage: Index of its stage; a patch merging belongs to the stage that it ends.
        last: Whether it stands in the last block of its stage.
        into, out: Input and output channels.
    """

    kind: str
    stage: int
    last: bool
    into: int
    out: int


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a backbone, and the number of tasks.

    Attributes:
        widths: Channels C of the blocks of each stage.
        depths: Blocks of each stage.
        tasks: Number of tasks T.
        layers: The linear layers that a method may rewire, in any order.
        members: The backbone's own parameters (without final norm and classifier), parted by membership: how many are in exactly these
            groups of `methods.base.ALSO_TRAIN`; the name "vector" marks those that are bias vectors, of norms too.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    tasks: int
    layers: tuple[Layer, ...]
    members: Mapping[tuple[str, ...], int]

    def over_blocks(self, term: Callable[[int], int]) -> int:
        """Sum `term(C)` over all blocks."""
        return sum(depth * term(width) for width, depth in zip(self.widths, self.depths, strict=True))

    def over_layers(self, kinds: Iterable[str], term: Callable[[int, int], int]) -> int:
        """Sum `term(input channels, output channels)` over all layers of the kinds."""
        wanted = frozenset(kinds)
        return sum(term(layer.into, layer.out) for layer in self.layers if layer.kind in wanted)

    def own(self, groups: Collection[str]) -> int:
        """Count the backbone's own parameters that are in any of the groups."""
        return sum(count for names, count in self.members.items() if not set(groups).isdisjoint(names))

    def backbone(self) -> int:
        """Count the whole backbone."""
        return sum(self.members.values())


def swin_shape(
    *, widths: tuple[int, ...], depths: tuple[int, ...], heads: tuple[int, ...], windows: tuple[int, ...], patch: int, tasks: int
) -> Shape:
    """Return the shape of a Swin (arXiv 2103.14030) with qkv bias and MLP ratio 4, by formula.

    Args:
        widths: Channels C of the blocks of each stage; each stage has twice those of the one before.
        depths: Blocks of each stage.
        heads: Attention heads of each stage.
        windows: Side of the attention windows of each stage, tokens.
        patch: Side of a patch, pixels.
        tasks: Number of tasks T.
    """
    channels = {"qkv": (1, 3), "proj": (1, 1), "fc1": (1, 4), "fc2": (4, 1)}  # in units of C
    layers = [
        Layer(kind=kind, stage=stage, last=block == depth - 1, into=into * c, out=out * c)
        for stage, (c, depth) in enumerate(zip(widths, depths, strict=True))
        for block in range(depth)
        for kind, (into, out) in channels.items()
    ]
    layers += [Layer(kind="reduction", stage=stage, last=False, into=4 * c, out=2 * c) for stage, c in enumerate(widths[:-1])]
    first = widths[0]

    def over_blocks(factor: int, power: int = 1) -> int:
        return sum(depth * factor * c**power for c, depth in zip(widths, depths, strict=True))

    norms = over_blocks(2) + sum(4 * c for c in widths[:-1])  # two a block, one a patch merging over 4 C; weight and bias alike
    stages = zip(depths, heads, windows, strict=True)
    members = {
        (): over_blocks(12, 2),
        ("bias", "vector"): over_blocks(9),  # qkv 3 C, proj C, fc1 4 C, fc2 C
        ("norm",): norms,
        ("norm", "vector"): norms,
        ("relative_position",): sum(depth * head * (2 * window - 1) ** 2 for depth, head, window in stages),
        ("patch_embed",): 3 * patch**2 * first + first,  # convolution, weight of its norm
        ("patch_embed", "bias", "vector"): first,
        ("patch_embed", "vector"): first,
        ("patch_merging",): sum(8 * c * c for c in widths[:-1]),
    }
    return Shape(widths=widths, depths=depths, tasks=tasks, layers=tuple(layers), members=members)
