"""The report's figures and files: complete, legible, the same every time, made without torch or ray."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_records import demo_like_suite
from matplotlib.lines import Line2D
from matplotlib.path import Path as Path2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from bench.report import make_report, plots
from bench.report.plots.labels import place_labels
from bench.report.plots.training_curves import draw_training_curves, loss_numbers
from bench.report.stats import row_frame
from bench.report.style import draw_intervals, family_styles, legend_columns, log_axis, new_figure, render
from bench.tasks import TASK_NAMES

ROOT = Path(__file__).parent.parent
FIGURES = ("pareto_params", "pareto_memory", "pareto_costs", "rank_curves", "task_bars", "interference", "memory_parts", "training_curves")
EVIDENCE = [
    "fronts.csv",
    "hypervolume.csv",
    "iso_params.csv",
    "iso_memory.csv",
    "pairs.csv",
    "claims.csv",
    "claims.md",
    "fronts.md",
    "iso.md",
    "pairs.md",
    "table.html",
]
FILES = ["table.csv", "table.md", "table.tex", "summary.md", "report.html", *EVIDENCE] + [
    f"{name}.{kind}" for name in FIGURES for kind in ("png", "pdf", "csv")
]


@pytest.fixture(scope="module")
def demo_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a report shaped like the demo's."""
    directory = demo_like_suite().write(tmp_path_factory.mktemp("demo"))
    assert sorted(make_report(directory).files) == sorted(FILES)
    return directory


def test_a_second_report_has_the_same_bytes_and_leaves_plan_and_records_alone(demo_report: Path) -> None:
    before = {path: path.read_bytes() for path in demo_report.rglob("*") if path.is_file()}
    make_report(demo_report)
    assert {path: path.read_bytes() for path in demo_report.rglob("*") if path.is_file()} == before


def test_pdf_fonts_are_embedded_as_truetype(demo_report: Path) -> None:
    for name in FIGURES:
        content = (demo_report / f"{name}.pdf").read_bytes()
        assert b"/FontFile2" in content
        assert b"/Type3" not in content
        assert b"CreationDate" not in content


def test_plotted_numbers_lie_beside_the_figure(demo_report: Path) -> None:
    table = pd.read_csv(demo_report / "table.csv").set_index("label")
    numbers = pd.read_csv(demo_report / "pareto_params.csv").set_index("label")
    assert len(numbers) == len(table)
    np.testing.assert_allclose(numbers["cost"], table.loc[numbers.index, "trainable_params"] / 1e6)
    np.testing.assert_allclose(numbers["delta_m_std"], table.loc[numbers.index, "delta_m_std"])
    memory = pd.read_csv(demo_report / "pareto_memory.csv").set_index("label")
    assert memory.loc["Decoders only", "cost"] == 70
    curves = pd.read_csv(demo_report / "rank_curves.csv")
    assert set(curves["panel"]) == {*TASK_NAMES, "delta_m"}
    assert set(curves["family"]) == {
        "Single-task full fine-tuning", "Multi-task full fine-tuning", "Decoders only", "LoRA", "Adapter", "MTLoRA",
    }  # fmt: skip


def test_labels_cover_no_marker_and_no_other_label() -> None:
    suite = demo_like_suite()
    rows = row_frame(suite.plan(), suite.records)
    for cost in ("trainable_params", "step_memory_bytes"):
        numbers = plots.pareto_numbers(rows, cost=cost, scale=1e6)
        figure = plots.draw_pareto(numbers, family_styles(rows), cost_title="cost", reference_label="reference", title="t")
        figure.canvas.draw()
        axes = figure.axes[0]
        boxes = [Text.get_window_extent(text).padded(-1) for text in axes.texts]  # without the leader
        assert len(boxes) == len(numbers) == 13
        markers = axes.transData.transform(numbers[["cost", "delta_m"]].to_numpy())
        for position, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[position + 1 :])
            assert not any(box.contains(*marker) for marker in markers)
            assert Bbox.intersection(box, axes.bbox).size == pytest.approx(box.size)
        legend = figure.legends[0].get_window_extent()
        assert not legend.overlaps(axes.get_tightbbox())


CROWDED = (
    ('Single-task full fine-tuning', 'Single-task full fine-tuning', None, 47.4, 0.0, None),
    ('Multi-task full fine-tuning', 'Multi-task full fine-tuning', None, 54.3, -0.87, 4.17),
    ('Decoders only', 'Decoders only', None, 18.1, -7.26, 3.49),
    ('LoRA (r=4)', 'LoRA', 4.0, 40.9, -1.49, 4.0),
    ('LoRA (r=8)', 'LoRA', 8.0, 42.3, -1.48, 4.43),
    ('LoRA (r=16)', 'LoRA', 16.0, 45.2, 0.6, 4.54),
    ('Adapter (ρ=8)', 'Adapter', 8.0, 29.6, -5.4, 3.46),
    ('Adapter (ρ=4)', 'Adapter', 4.0, 31.1, -3.6, 3.61),
    ('VPT-deep (p=10)', 'VPT-deep', 10.0, 30.7, -8.79, 3.75),
    ('MTLoRA (r=4)', 'MTLoRA', 4.0, 64.5, -3.24, 6.9),
    ('MTLoRA (r=8)', 'MTLoRA', 8.0, 65.9, -3.4, 5.13),
    ('MTLoRA (r=16)', 'MTLoRA', 16.0, 68.8, -0.69, 4.24),
    ('MTLoRA+ (r=8)', 'MTLoRA+', 8.0, 66.7, -2.42, 4.95),
)  # fmt: skip
"""Label, family, dial, cost, delta_m and half its interval of the demo's rows."""


def test_a_name_stands_near_its_point_even_where_intervals_lie_around_it() -> None:
    numbers = pd.DataFrame(CROWDED, columns=["label", "family", "dial_value", "cost", "delta_m", "half"])
    ends = {f"delta_m_{end}": numbers["delta_m"] + sign * numbers["half"] for end, sign in (("low", -1), ("high", 1))}
    front = plots.pareto.pareto_front(numbers["cost"], numbers["delta_m"])
    numbers = numbers.assign(**ends, cost_low=np.nan, cost_high=np.nan, n=3, on_front=front)
    styles = {family: {"color": "#000000", "marker": "o", "linestyle": "-", "hatch": ""} for family in numbers["family"]}
    figure = plots.draw_pareto(numbers, styles, cost_title="cost", reference_label="reference", title="t")
    labels = figure.axes[0].texts
    assert len(labels) == len(numbers)
    assert max(np.hypot(*label.xyann) for label in labels) < 45  # points, to the middle of the label


def test_leaders_neither_cross_each_other_nor_hide_in_an_interval() -> None:
    generator, leaders = np.random.default_rng(3), 0
    for _ in range(6):
        figure = new_figure(7.0, 4.2)
        axes = figure.add_subplot()
        x, y = generator.uniform(0.3, 0.6, (2, 12))
        axes.plot(x, y, "o", markersize=5)
        axes.set(xlim=(0, 1), ylim=(0, 1))
        draw_intervals(axes, [(at, middle - 0.2, middle + 0.2, {"color": "0.5"}) for at, middle in zip(x, y, strict=True)], "y")
        figure.canvas.draw()
        figure.set_layout_engine("none")
        place_labels(axes, x=x, y=y, texts=[f"Method number {place}" for place in range(12)], colors=["black"] * 12, size=6.5)
        figure.canvas.draw()
        arrows = [text.arrow_patch for text in axes.texts if text.arrow_patch is not None]
        lines = [arrow.get_transform().transform(arrow.get_path().vertices)[[0, -1]] for arrow in arrows]
        assert len(axes.texts) == 12
        leaders += len(lines)
        assert not any(Path2D(line).intersects_path(Path2D(other)) for place, line in enumerate(lines) for other in lines[place + 1 :])
        assert all(abs(line[1] - line[0])[0] > 0.1 * abs(line[1] - line[0])[1] for line in lines)  # none upright, as intervals are
    assert leaders > 6  # else nothing was looked at


def test_the_legend_names_an_arrow_only_where_one_is_drawn_and_intervals_inside_end_before_the_frame() -> None:
    suite = demo_like_suite()
    rows = row_frame(suite.plan(), suite.records)
    numbers = plots.pareto_numbers(rows, cost="trainable_params", scale=1e6).assign(delta_m_low=lambda own: own["delta_m"] - 0.1)
    for reach, arrow in ((0.1, False), (1e4, True)):
        own = numbers.assign(delta_m_high=numbers["delta_m"] + 0.1)
        own.loc[0, "delta_m_high"] = own.loc[0, "delta_m"] + reach
        figure = plots.draw_pareto(own, family_styles(rows), cost_title="cost", reference_label="reference", title="t")
        assert any("arrow" in text.get_text() for text in figure.legends[0].get_texts()) == arrow
        low, high = figure.axes[0].get_ylim()
        ends = own.loc[1:, ["delta_m_low", "delta_m_high"]].to_numpy()
        assert ((ends - low > 0.015 * (high - low)) & (high - ends > 0.015 * (high - low))).all()


@pytest.mark.parametrize(("low", "high"), [(0.055, 0.196), (3.5, 12.3), (17.0, 70.0), (0.1, 7.4), (40, 41), (1.0, 2.0), (1e-3, 1e7)])
def test_a_log_axis_has_labelled_ticks_all_along_its_values(low: float, high: float) -> None:
    axes = new_figure(3.5, 2.7).add_subplot()
    axes.plot([low, high], [0, 1])
    log_axis(axes, [low, high])
    shown = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert 3 <= len(shown) <= 12
    gaps = np.diff(np.log([low, *shown, high])) / np.log(high / low)
    assert gaps.max() < 0.5


def test_families_have_distinct_looks_that_survive_grey_print() -> None:
    suite = demo_like_suite()
    styles = family_styles(row_frame(suite.plan(), suite.records))
    assert len({style["marker"] for style in styles.values()}) == len(styles) == 8


def test_the_legend_of_the_training_curves_stays_on_the_page() -> None:
    suite = demo_like_suite()
    rows = row_frame(suite.plan(), suite.records)
    figure = draw_training_curves(loss_numbers(suite.plan(), suite.records, rows), family_styles(rows), title="Made")
    render(figure)
    legend = figure.legends[0].get_window_extent()
    assert legend.x0 >= 0
    assert legend.x1 <= figure.bbox.x1
    assert legend.y0 >= 0


def test_labels_and_legends_of_many_long_names_stay_apart_and_on_the_page() -> None:
    generator, names = np.random.default_rng(1), [f"Shared LoRA + the trainable rest at r={place}" for place in range(45)]
    figure = new_figure(7.0, 4.2)
    axes = figure.add_subplot()
    x, y = generator.uniform(0, 1, (2, 45))
    axes.plot(x, y, "o")
    figure.canvas.draw()
    figure.set_layout_engine("none")
    place_labels(axes, x=x, y=y, texts=names, colors=["black"] * 45, size=6.5)
    figure.canvas.draw()
    boxes = [Text.get_window_extent(text).padded(-1) for text in axes.texts]
    assert 10 < len(boxes) < 45  # there is no room for all, and none lies on another
    assert not any(box.overlaps(other) for place, box in enumerate(boxes) for other in boxes[place + 1 :])
    for labels in (names[:12], ["LoRA", "MTLoRA"] * 5, ["x" * 70, "LoRA"]):
        page = new_figure(7.0, 4.0)
        handles = [Line2D([], [], label=label) for label in labels]
        legend = page.legend(handles=handles, loc="outside lower center", ncols=legend_columns(labels), frameon=False, fontsize=7)
        page.canvas.draw()
        assert 0 <= legend.get_window_extent().x0 < legend.get_window_extent().x1 <= page.bbox.x1
    assert legend_columns(["LoRA", "MTLoRA"] * 5) == 4


def test_the_report_needs_neither_torch_nor_ray(tmp_path: Path) -> None:
    demo_like_suite(seeds=(0,)).write(tmp_path)
    script = (
        "import sys\n"
        "for name in ('torch', 'ray', 'timm', 'methods', 'torchvision', 'cv2'): sys.modules[name] = None\n"
        f"import bench.report, pathlib; bench.report.make_report(pathlib.Path({str(tmp_path)!r}))\n"
        "assert not [name for name in sys.modules if name.partition('.')[0] in ('torch', 'ray') and sys.modules[name]]\n"
        "assert 'matplotlib.pyplot' not in sys.modules or not sys.modules['matplotlib.pyplot'].get_fignums()\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=ROOT, check=True)
    without_seaborn = [
        name for name in FILES if not name.startswith(("training_curves", "interference"))
    ]  # scipy.stats fails where torch is None
    assert all((tmp_path / name).exists() for name in without_seaborn)


def test_summary_names_commands_data_and_figures(demo_report: Path) -> None:
    text = (demo_report / "summary.md").read_text()
    for part in (
        "python run_suite.py run made",
        "python run_suite.py report made",
        "![pareto params](pareto_params.png)",
        "da7a",
        "Seeds: 0, 1",
    ):
        assert part in text
    assert "nan" not in text.lower().split()


def test_a_current_report_is_kept_and_another_is_made_again(tmp_path: Path):
    suite = demo_like_suite()
    directory = suite.write(tmp_path)
    made = make_report(directory)
    figure = directory / "pareto_params.png"
    figure.write_bytes(b"kept")
    kept = make_report(directory, keep_current=True)
    assert figure.read_bytes() == b"kept"
    assert kept.files == made.files
    record = next((directory / "records").glob("*.json"))
    younger = (directory / "summary.md").stat().st_mtime + 1
    os.utime(record, (younger, younger))
    make_report(directory, keep_current=True)
    assert figure.read_bytes() != b"kept"
