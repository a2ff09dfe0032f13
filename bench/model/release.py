"""Names of the official MTLoRA release's state dict (arXiv 2403.20320), in the suite's terms.

| release | here |
|---|---|
| `backbone.layers.I.downsample.` (ends stage I) | `backbone.swin.layers.(I+1).downsample.` (timm: starts the next stage) |
| `backbone.` else | `backbone.swin.` |
| `.lora_shared_A`, `.lora_shared_B` | `.lora_A`, `.lora_B` |
| `.lora_tasks_A.T`, `.lora_tasks_B.T` | `.task_A.T`, `.task_B.T` |
| `.lora_norm` | `.norm` |
| `downsampler.T.downsample_K.` | `decoders.T.narrow.K.` |
| `decoders.decoders.T.last_layer.K.` | `decoders.T.head.K.` |
| task `sal` | task `saliency` |

Buffers that follow from the sizes (`relative_position_index`, `attn_mask`) have no counterpart.
"""

import re

_DERIVED = ("relative_position_index", "attn_mask")
_RULES = (
    (r"^backbone\.layers\.(\d+)\.downsample\.", lambda match: f"backbone.swin.layers.{int(match[1]) + 1}.downsample."),
    (r"^backbone\.(?!swin\.)", "backbone.swin."),
    (r"\.lora_shared_([AB])$", r".lora_\1"),
    (r"\.lora_tasks_([AB])\.", r".task_\1."),
    (r"\.lora_norm\.", ".norm."),
    (r"^downsampler\.(\w+)\.downsample_(\d)\.", r"decoders.\1.narrow.\2."),
    (r"^decoders\.decoders\.(\w+)\.last_layer\.", r"decoders.\1.head."),
    (r"(^|\.)sal(\.|$)", r"\1saliency\2"),
)


def name_from_release(name: str) -> str | None:
    """Translate a name of the release's state dict; None for a buffer that is derived here."""
    if name.endswith(_DERIVED):
        return None
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    return name
