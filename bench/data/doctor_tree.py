"""Read a data set's directory and say what is there, what is broken and what to do about it. Reads only."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.data.depth_values import depth_findings
from bench.data.findings import Finding
from bench.data.information import information_findings
from bench.data.layout import (
    MANIFEST,
    SPLITS,
    DataError,
    Layout,
    content_hash_of,
    find_files,
    first,
    in_both,
    layout_of,
    read_split,
    roots_inside,
)
from bench.data.normal_values import normals_findings
from bench.data.scan import ImageScan, scan
from bench.data.untouched import refuse_inside
from bench.storage import write_atomically
from bench.tasks import DATA_SETS

SHOWN = 10
"""Broken files that are named one by one; the others are counted, and written to a file where one is asked for."""

ORIGINAL = {
    "pascal_context": "the original archive PASCAL_MT.tgz, described in the README of the ASTMT code (Maninis et al., arXiv 1904.08918)",
    "nyud": "the original archive NYUD_MT.tgz, described in the README of the ASTMT code (Maninis et al., arXiv 1904.08918)",
}
_DISTILLED = ("normals", "saliency")
_MOSTLY_LABELLED = ("semseg", "depth")
"""Tasks that label most pixels of any good tree. Most images show no person, and normals count in some context classes only."""


def check_data_root(
    root: Path, *, start: Callable[[int], Callable[[int], None]] | None = None, problems: Path | None = None
) -> list[Finding]:
    """Check the layout, the splits, every modality's files, and the content of every file.

    Args:
        root: The directory.
        start: Called with the number of images before they are read; what it returns is called with 1 after each: a progress bar.
        problems: Text file to which every missing, broken or implausible file is written, and every image without a label of a task, one a
            line: split, modality or task, what is wrong, id (separated by tabs; the message about a broken file names its path instead).

    Returns:
        The findings; those with status "fail" stop a run.

    Raises:
        DataError: `problems` lies inside of the data set.
    """
    if problems is not None:
        refuse_inside(problems, root, option="--problems")
    try:
        layout = layout_of(root)
    except DataError as error:
        return [Finding("data root", "fail", str(error), _nearer(root))]
    findings, ids = [Finding("data root", "ok", f"{layout.title} layout ({layout.data_set}) in {root}")], {}
    for split in SPLITS:
        try:
            ids[split] = read_split(root, split)
        except DataError as error:
            findings.append(Finding(f"split {split}", "fail", str(error), f"mend {layout.split_folder}/{split}.txt"))
        else:
            findings.append(_count(root, layout, split, len(ids[split])))
    findings += _overlap(ids) + _manifest(root)
    progress = (start or _no_bar)(sum(map(len, ids.values())))
    lines: list[str] = []
    for split, names in ids.items():
        found, listed = _check_split(root, layout, split, names, progress, problems)
        findings += found
        lines += listed
    if problems is not None:
        write_atomically(problems, "".join(f"{line}\n" for line in lines))
        findings.append(Finding("list of problems", "ok", f"{len(lines)} lines in {problems}"))
    return findings


def _check_split(
    root: Path, layout: Layout, split: str, names: Sequence[str], progress: Callable[[int], None], listed: Path | None
) -> tuple[list[Finding], list[str]]:
    """Read every file of a split. Returns the findings, and a line for every file or image that is not as it should be."""
    files, findings, missing = _check_files(root, layout, split, names)
    scans = scan(layout, [{m: paths[name] for m, paths in files.items()} for name in names], progress)
    findings += _content(layout, split, scans, missing, listed) + _sizes(layout, split, names, scans)
    found, unlabelled = _labels(layout, split, names, scans)
    findings += found + information_findings(layout, split, [one.shown for one in scans])
    lines = [f"{split}\t{modality}\tmissing\t{name}" for modality, absent in missing.items() for name in absent]
    lines += [f"{split}\t{modality}\t{message}" for one in scans for modality, message in one.problems]
    lines += [f"{split}\t{task}\tno labelled pixel\t{name}" for task, without in unlabelled.items() for name in without]
    for task, judged in (
        ("depth", depth_findings(split, names, [one.depth for one in scans])),
        ("normals", normals_findings(split, names, [one.normals for one in scans])),
    ):
        findings += judged[0]
        lines += [f"{split}\t{task}\t{message}\t{name}" for name, message in judged[1]]
    return findings, lines


def _nearer(root: Path) -> str:
    inside = roots_inside(root)
    return f"use --data-root {inside[0]}" if inside else "point --data-root at the folder that holds the split files and the images"


def _no_bar(total: int) -> Callable[[int], None]:
    return lambda done: None


def _count(root: Path, layout: Layout, split: str, count: int) -> Finding:
    expected = layout.counts[split]
    if count == expected:
        return Finding(f"split {split}", "ok", f"{count} images, as published")
    if (root / MANIFEST).exists():
        return Finding(f"split {split}", "ok", f"{count} images (rendered data set)")
    remedy = "compare results only with runs on the same split"
    return Finding(f"split {split}", "warn", f"{count} images; {layout.data_set}'s published split has {expected}", remedy)


def _overlap(splits: Mapping[str, Sequence[str]]) -> list[Finding]:
    if len(splits) < 2:
        return []
    if not (both := in_both(splits)):
        return [Finding("splits", "ok", "train and val share no image")]
    return [Finding("splits", "fail", f"{len(both)} images are in train and val: {first(both)}", "take them out of one of the two lists")]


def _manifest(root: Path) -> list[Finding]:
    """Check what a rendered tree says of itself, which is part of its fingerprint."""
    try:
        content_hash_of(root)
    except DataError as error:
        return [Finding(MANIFEST, "fail", str(error), "render the tree again, or delete the file where the tree is not a rendered one")]
    return []


def _check_files(
    root: Path, layout: Layout, split: str, ids: Sequence[str]
) -> tuple[dict[str, dict[str, str | None]], list[Finding], dict[str, list[str]]]:
    """Count the files of every modality. Returns the files, the findings, and the ids that lack a file, by modality."""
    files, findings, missing = {}, [], {}
    for modality, kind in layout.modalities.items():
        try:
            files[modality] = find_files(root, kind, ids)
        except DataError as error:
            files[modality] = dict.fromkeys(ids)
            missing[modality] = list(ids)
            findings.append(Finding(f"{split} {modality}", "fail", str(error), "allow this user to read the folder"))
            continue
        absent = [name for name, path in files[modality].items() if path is None]
        subject, count = f"{split} {modality}", f"{len(ids) - len(absent)} of {len(ids)} files, {kind.pattern}"
        if not absent:
            findings.append(Finding(subject, "ok", count))
            continue
        missing[modality] = absent
        whole = " (the whole modality is absent)" if len(absent) == len(ids) else ""
        findings.append(Finding(subject, "fail", f"{count}{whole}; missing: {first(absent)}", _remedy(layout, modality, whole)))
    return files, findings, missing


def _remedy(layout: Layout, modality: str, whole: str) -> str:
    tasks = "every task" if modality == "image" else ", ".join(task for task, needs in layout.needed.items() if modality in needs)
    remedy = f"complete the folder: it is needed for {tasks}"
    if whole and modality in _DISTILLED:
        return f"{remedy}; some mirrors lack it: {ORIGINAL[layout.name]}, holds it"
    return remedy


def _content(
    layout: Layout, split: str, scans: Sequence[ImageScan], missing: Mapping[str, Sequence[str]], listed: Path | None
) -> list[Finding]:
    """Say what reading the files has shown."""
    subject, broken = f"{split} content", [message for one in scans for _, message in one.problems]
    findings = [Finding(subject, "fail", message, "replace the file") for message in broken[:SHOWN]]
    if len(broken) > SHOWN:
        remedy = "replace the files" if listed is not None else "list them all with --problems FILE, and replace them"
        findings.append(Finding(subject, "fail", f"and {len(broken) - SHOWN} broken files more, {len(broken)} in all", remedy))
    complete = [task for task in DATA_SETS[layout.name] if not set(missing) & {"image", *layout.needed[task]}]
    if not broken:
        findings.append(Finding(subject, "ok", f"{len(scans)} images read in full: {', '.join(complete)}"))
    return findings


def _sizes(layout: Layout, split: str, names: Sequence[str], scans: Sequence[ImageScan]) -> list[Finding]:
    """Say which labels have another size than their image, and what becomes of them."""
    findings = []
    for modality in layout.modalities:
        resized = {name: (one.resized[modality], one.size) for name, one in zip(names, scans, strict=True) if modality in one.resized}
        if resized:
            own, image = (f"{height} x {width}" for height, width in next(iter(resized.values())))
            text = (
                f"{len(resized)} of {len(names)} files have another size than their image, the first {own} for {image} (rows x columns): "
                f"{first(list(resized))}"
            )
            remedy = "nothing, if they were made at another scale: a run brings them to their image's size, normals cubic, others nearest"
            findings.append(Finding(f"{split} {modality} sizes", "warn", text, remedy))
    return findings


def _labels(layout: Layout, split: str, names: Sequence[str], scans: Sequence[ImageScan]) -> tuple[list[Finding], dict[str, list[str]]]:
    """Say which images have no label of a task, and how many pixels have none. Returns also the ids without any label, by task."""
    findings, unlabelled = [], {}
    for task in DATA_SETS[layout.name]:
        seen = [(name, one.labelled[task]) for name, one in zip(names, scans, strict=True) if task in one.labelled]
        unlabelled[task] = without = [name for name, labelled in seen if not labelled]
        if seen and len(without) == len(seen):
            remedy = "look at the labels of this task: its loss would be zero"
            findings.append(Finding(f"{split} {task}", "warn", f"none of the {len(seen)} images has a labelled pixel for {task}", remedy))
        elif without:
            text = f"{len(without)} of {len(seen)} images have no labelled pixel for {task} and do not count there: {first(without)}"
            findings.append(Finding(f"{split} {task} labels", "ok", text))
        void = [one.void[task] for one in scans if task in one.void]
        if void:
            share = float(np.mean(void))
            remedy = "look at these labels: most of them are missing" if share > 0.5 and task in _MOSTLY_LABELLED else None
            text = f"{100 * share:.1f} % of the pixels of an image have no label of {task} on average"
            findings.append(Finding(f"{split} {task} void", "warn" if remedy else "ok", text, remedy))
    return findings, unlabelled
