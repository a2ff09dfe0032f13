"""Whether depth is in metres and whole: what a file of depth holds before the reader leaves out what is no depth. No torch."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bench.data.findings import Finding
from bench.data.layout import first

FARTHEST_METRES = 20.0
"""The sensor of NYUD-v2 reaches 10 m; larger values are another unit, or no depth."""


class DepthScan(NamedTuple):
    """Values of one file.

    Attributes:
        negative, not_finite: Share of such pixels, 0 to 1; the reader ignores them, as it does zeros.
        median, largest: Of the positive finite values, None without any.
        eight_bit: Whether the file holds bytes, as a picture does.
    """

    negative: float
    not_finite: float
    median: float | None
    largest: float | None
    eight_bit: bool


def scan_depth(depth: np.ndarray) -> DepthScan:
    """Look at a file of depth as it is, (h, w) of any type of number."""
    values = depth.astype(np.float64)
    finite = np.isfinite(values)
    known = values[finite & (values > 0)]
    ends = (float(np.median(known)), float(known.max())) if known.size else (None, None)
    return DepthScan(float((values[finite] < 0).sum() / values.size), float(1 - finite.mean()), *ends, depth.dtype.itemsize == 1)


def depth_findings(split: str, names: Sequence[str], scans: Sequence[DepthScan | None]) -> tuple[list[Finding], list[tuple[str, str]]]:
    """Judge the depth of a split.

    Args:
        split: Its name.
        names: The images' ids.
        scans: What their files hold, None where one cannot be read.

    Returns:
        The findings, and (id, what is wrong) for every file that is not plausible.
    """
    seen = [(name, scan) for name, scan in zip(names, scans, strict=True) if scan is not None]
    known = [(name, scan) for name, scan in seen if scan.largest is not None]
    if not seen:
        return [], []
    subject, findings, listed = f"{split} depth values", [], []
    far = [(name, scan) for name, scan in known if scan.largest > FARTHEST_METRES or scan.eight_bit]
    if far:
        median, largest = float(np.median([scan.median for _, scan in far])), max(scan.largest for _, scan in far)
        text = f"{len(far)} of {len(seen)} files are not in metres: median {median:.4g}, largest {largest:.4g}; {_guess(far)}"
        text = f"{text}; ids {first([name for name, _ in far])}"
        findings.append(Finding(subject, "fail", text, "convert depth to metres (float32), 0 where it is missing"))
        listed += [(name, f"depth up to {scan.largest:.4g}, not in metres") for name, scan in far]
    elif known and max(scan.largest for _, scan in known) <= 1:
        text = f"no depth of {len(known)} files is beyond 1 m: they look scaled to 0..1"
        findings.append(Finding(subject, "warn", text, "check the unit: depth must be in metres"))
    for attribute, word in (("negative", "negative"), ("not_finite", "not finite")):
        odd = [(name, getattr(scan, attribute)) for name, scan in seen if getattr(scan, attribute) > 0]
        if odd:
            text = f"{len(odd)} of {len(seen)} files hold {word} values, which are ignored: ids {first([name for name, _ in odd])}"
            findings.append(Finding(subject, "warn", text, "check how they were made; missing depth is 0"))
            listed += [(name, f"{100 * share:.2f} % of the depth values are {word}") for name, share in odd]
    if known and not findings:
        median, largest = np.median([scan.median for _, scan in known]), max(scan.largest for _, scan in known)
        findings.append(Finding(subject, "ok", f"metres: median {median:.2f}, largest {largest:.2f}"))
    return findings, listed


def _guess(far: Sequence[tuple[str, DepthScan]]) -> str:
    """Say what unit it may be."""
    if all(scan.largest <= 255 for _, scan in far):
        return "they look like the 0..255 of a picture"
    return "they look like millimetres" if np.median([scan.median for _, scan in far]) > 300 else "their unit is unknown"
