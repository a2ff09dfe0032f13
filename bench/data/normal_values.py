"""Whether the arrays of NYUD_MT's normals hold vectors: the reader takes any length, and hence cannot tell a picture's bytes. No torch."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bench.data.findings import Finding
from bench.data.layout import first


class NormalsScan(NamedTuple):
    """Values of one file.

    Attributes:
        not_finite: Share of pixels with such a component, 0 to 1; the reader ignores them.
        coded: Whether no component is negative and some lie beyond 1, as where -1..1 is stored as 0..255: turned to vectors, all of them
            would point into one octant.
    """

    not_finite: float
    coded: bool


def scan_normals(normals: np.ndarray) -> NormalsScan:
    """Look at a file of normals as it is, (h, w, 3) of any type of number."""
    finite = np.isfinite(normals)
    known = normals[finite]
    coded = bool(known.size) and float(known.min()) >= 0 and float(known.max()) > 1
    return NormalsScan(float(1 - finite.all(axis=2).mean()), coded)


def normals_findings(split: str, names: Sequence[str], scans: Sequence[NormalsScan | None]) -> tuple[list[Finding], list[tuple[str, str]]]:
    """Judge the normals of a split.

    Args:
        split: Its name.
        names: The images' ids.
        scans: What their files hold, None where one cannot be read or the layout keeps normals as pictures.

    Returns:
        The findings, and (id, what is wrong) for every file that is not plausible.
    """
    seen = [(name, scan) for name, scan in zip(names, scans, strict=True) if scan is not None]
    findings, listed = [], []
    coded = [name for name, scan in seen if scan.coded]
    if coded:
        text = f"{len(coded)} of {len(seen)} files hold no vectors but the 0..255 of a picture: ids {first(coded)}"
        findings.append(Finding(f"{split} normals values", "fail", text, "convert them: normal = value / 127.5 - 1, float32"))
        listed += [(name, "normals are coded as a picture's bytes") for name in coded]
    odd = [(name, scan.not_finite) for name, scan in seen if scan.not_finite > 0]
    if odd:
        text = f"{len(odd)} of {len(seen)} files hold not finite values, which are ignored: ids {first([name for name, _ in odd])}"
        findings.append(Finding(f"{split} normals values", "warn", text, "check how they were made; a missing normal is 0"))
        listed += [(name, f"{100 * share:.2f} % of the normals are not finite") for name, share in odd]
    return findings, listed
