"""One zip that another machine can read: plan, records, tables, figures, page, and what is needed to make and to cite them.

What is damaged goes along where no report looks for it, `damaged/`, with the reason in `damaged/README.txt`: a report from the zip counts
it as missing, and who wants to mend it has it.
"""

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.record import write_atomically
from bench.report.loading import load_results

REPOSITORY = Path(__file__).parents[2]
LEFT_OUT = ("checkpoints", "ray", "tensorboard", "mlruns", "wandb", "tuning", "launches")
_BESIDE = ("constraints.txt", "LICENSE", "CITATION.cff", "results/README.md", "results/published.csv", "results/published_counts.csv")


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What a zip holds.

    Attributes:
        names: The names in the zip.
        damaged: Why, per file of the suite that is damaged and lies under `damaged/`.
    """

    names: list[str]
    damaged: Mapping[str, str]


def export(suite_dir: Path, target: Path) -> Exported:
    """Write the zip; the same results give the same bytes.

    Args:
        suite_dir: `results/<suite>`, reported already: what is not there is not packed.
        target: The zip file; its folder is made.

    Raises:
        RecordError: Where the plan cannot be read.
    """
    suite_dir = Path(suite_dir)
    results = load_results(suite_dir)
    plan, damaged = results.plan, dict(sorted(results.damaged.items()))
    files = {}
    for path in _results(suite_dir):
        name = path.relative_to(suite_dir).as_posix()
        files[f"damaged/{name}" if name in damaged else f"results/{plan['suite']}/{name}"] = path.read_bytes()
    if damaged:
        files["damaged/README.txt"] = _damage(damaged).encode()
    files |= {name: (REPOSITORY / name).read_bytes() for name in (*_BESIDE, "results/claims.toml") if (REPOSITORY / name).exists()}
    files["README.txt"] = _readme(plan, results.records, damaged).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(info, files[name])
    write_atomically(target, buffer.getvalue())
    return Exported(names=sorted(files), damaged=damaged)


def _damage(damaged: Mapping[str, str]) -> str:
    """Name every damaged file, with the reason."""
    lines = "".join(f"{name}: {' '.join(why.split())}\n" for name, why in damaged.items())
    return (
        f"Files that could not be read when this was packed; reports count them as missing; running the suite makes them again.\n\n{lines}"
    )


def _results(suite_dir: Path) -> list[Path]:
    """Return the files of a suite but for what is working state: checkpoints, events, logs, hidden files."""
    found = [path for path in suite_dir.rglob("*") if path.is_file()]
    parts = {path: path.relative_to(suite_dir).parts for path in found}
    return sorted(
        path for path in found if not set(parts[path]) & set(LEFT_OUT) and not any(part.startswith(".") for part in parts[path])
        and path.suffix not in (".log", ".zip", ".tmp")
    )  # fmt: skip


def _readme(plan: Mapping, records: Sequence[Mapping], damaged: Mapping[str, str]) -> str:
    """Say what this is, which code made it, how to read it again, and under which licences."""
    commits = sorted({f"{record['git']['commit']}{' (with changes)' if record['git']['dirty'] else ''}" for record in records})
    codes = sorted({record["code_id"] for record in records})
    broken = f"{len(damaged)} damaged files, which count as missing, are kept apart: damaged/README.txt names them.\n" if damaged else ""
    return f"""{plan["title"]}

Suite {plan["suite"]}, {len(records)} records. Commit: {", ".join(commits)}.
Code (hash of the sources that can change a result): {", ".join(codes)}.
Made by: {plan.get("command")}
{broken}
Tables, figures and page again, with the code at that commit, installed by `pip install -c constraints.txt -e .`:

    unzip this file into a folder, then
    python run_suite.py report {plan["suite"]} --results FOLDER/results

Licence: records, tables and figures as the code, Apache-2.0 (LICENSE). The data set's images and labels are not in here, except where
qualitative panels (records/*.panels.npz, scenes-*.npz, figures) show a few of them: these stay under the licence of the data set, and
pretrained weights, which are not in here, under theirs. results/published.csv quotes numbers of papers with their sources.
To cite: CITATION.cff.
"""
