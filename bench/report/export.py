"""One zip that another machine can read: plan, records, tables, figures, page, and what is needed to make and to cite them."""

import io
import zipfile
from pathlib import Path

from bench.record import load_records, read_plan, write_atomically

REPOSITORY = Path(__file__).parents[2]
LEFT_OUT = ("checkpoints", "ray", "tensorboard", "mlruns", "wandb", "tuning", "launches")
_BESIDE = ("constraints.txt", "LICENSE", "CITATION.cff", "results/README.md", "results/published.csv", "results/published_counts.csv")


def export(suite_dir: Path, target: Path) -> list[str]:
    """Write the zip; the same results give the same bytes.

    Args:
        suite_dir: `results/<suite>`, reported already.
        target: The zip file; its folder is made.

    Returns:
        The names in the zip.

    Raises:
        RecordError: Where plan or records cannot be read.
    """
    suite_dir = Path(suite_dir)
    plan, records = read_plan(suite_dir / "plan.json"), load_records(suite_dir / "records")
    files = {f"results/{plan['suite']}/{path.relative_to(suite_dir).as_posix()}": path.read_bytes() for path in _results(suite_dir)}
    files |= {name: (REPOSITORY / name).read_bytes() for name in (*_BESIDE, "results/claims.toml") if (REPOSITORY / name).exists()}
    files["README.txt"] = _readme(plan, records).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(info, files[name])
    write_atomically(target, buffer.getvalue())
    return sorted(files)


def _results(suite_dir: Path) -> list[Path]:
    """Return the files of a suite but for what is working state: checkpoints, events, logs, hidden files."""
    found = [path for path in suite_dir.rglob("*") if path.is_file()]
    parts = {path: path.relative_to(suite_dir).parts for path in found}
    return sorted(
        path for path in found if not set(parts[path]) & set(LEFT_OUT) and not any(part.startswith(".") for part in parts[path])
        and path.suffix not in (".log", ".zip", ".tmp")
    )  # fmt: skip


def _readme(plan: dict, records: list[dict]) -> str:
    """Say what this is, which code made it, how to read it again, and under which licences."""
    commits = sorted({f"{record['git']['commit']}{' (with changes)' if record['git']['dirty'] else ''}" for record in records})
    codes = sorted({record["code_id"] for record in records})
    return f"""{plan["title"]}

Suite {plan["suite"]}, {len(records)} records. Commit: {", ".join(commits)}.
Code (hash of the sources that can change a result): {", ".join(codes)}.
Made by: {plan.get("command")}

Tables, figures and page again, with the code at that commit, installed by `pip install -c constraints.txt -e .`:

    unzip this file into a folder, then
    python run_suite.py report {plan["suite"]} --results FOLDER/results

Licence: records, tables and figures as the code, Apache-2.0 (LICENSE). The data set's images and labels are not in here, except where
qualitative panels (records/*.panels.npz, scenes-*.npz, figures) show a few of them: these stay under the licence of the data set, and
pretrained weights, which are not in here, under theirs. results/published.csv quotes numbers of papers with their sources.
To cite: CITATION.cff.
"""
