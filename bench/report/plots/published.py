"""Points of papers for the Pareto plot, where a suite was run in their setting: PASCAL-Context, Swin-T, 448 pixels."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

PUBLISHED = Path(__file__).parents[3] / "results" / "published.csv"
_DELTA_M = "delta_m_recomputed_vs_67.21_61.93_62.35_17.97"


def published_points(records: Sequence[Mapping], path: Path = PUBLISHED) -> pd.DataFrame | None:
    """Return published rows with parameters and delta_m, or None where the suite cannot be compared with them.

    They are the first table of MTLoRA (arXiv 2403.20320), which the suites restate. Numbers that are only recalled are left out.

    Returns:
        Columns label, cost (trainable parameters, millions, as the paper counts them) and delta_m (percent, recomputed from the four
        printed metrics).
    """
    if not path.exists() or not records or not all(_is_published_setting(record["config"]) for record in records):
        return None
    table = pd.read_csv(path)
    known = table[table["trainable_params_m"].notna() & table[_DELTA_M].notna()]
    known = known[known["source_paper"].str.startswith("MTLoRA") & known["table"].str.startswith("Table 1")]
    known = known[(known["backbone"] == "Swin-T") & known["evidence"].str.startswith("seen")].drop_duplicates(["method", "variant/rank"])
    variant = known["variant/rank"].fillna("").str.extract(r"^(r=\d+)")[0]
    label = known["method"] + variant.map(lambda text: "" if pd.isna(text) else f" {text}")
    costs = pd.to_numeric(known["trainable_params_m"], errors="coerce")
    points = pd.DataFrame({"label": label, "cost": costs, "delta_m": known[_DELTA_M]}).dropna()
    return points.reset_index(drop=True) if len(points) else None


def _is_published_setting(config: Mapping) -> bool:
    """Whether a trial has data set, backbone and image size of the published table."""
    source, backbone = config.get("data", {}).get("source"), str(config.get("backbone", {}).get("name"))
    return source == "pascal_context" and backbone.startswith("swin_tiny") and config.get("recipe", {}).get("image_size") == 448
