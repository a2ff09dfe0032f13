"""The page in a real browser: no request, no error; sorting, filtering, axes, hover and details do what they say."""

import base64
import gzip
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_panels import add_panels
from made_records import MadeSuite, demo_like_suite, made_method

from bench.report import make_report
from bench.report.commands import row_command, suite_command, trial_command
from bench.report.lacking import damage_notes
from bench.report.page.assets import packed
from bench.report.page.facts import facts
from bench.report.stats import pareto_front, row_frame

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="NO BROWSER: the page is not tested; install the Debian packages chromium and chromium-driver"
)
EVIL = "<img src=x onerror=\"document.title='broken'\"> & [r*]"
LIMIT_BYTES = 8_000_000
PAGES_AT_MOST = 12


def hard_suite() -> MadeSuite:
    """A suite with all that goes wrong: markup in a label, a tie, a failed, a diverged and a missing trial."""
    suite = demo_like_suite(seeds=(0, 1, 2))
    values = {seed: {"semseg": 30.0, "human_parts": 27.0, "saliency": 59.0, "normals": 25.0} for seed in suite.seeds}
    for place in (1, 2):
        method = made_method("twin", "Twin", None, None, label=f"Twin {place}") | {"title": f"Twin {place}"}
        suite.add(method, values, trainable=2_300_000, decoders=2_000_000)
    suite.add(made_method("evil", "Evil", None, None, label=EVIL), {0: values[0], 2: values[2]})
    tasks = "_".join(suite.tasks)
    status = {f"{tasks}-s0": "failed", f"{tasks}-s1": "diverged"}
    suite.add(made_method("bad", "Bad", None, None, label="Never well"), {0: values[0], 1: values[1]}, status=status)
    return suite


@pytest.fixture(scope="module")
def suite() -> MadeSuite:
    return hard_suite()


@pytest.fixture(scope="module")
def page(suite: MadeSuite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the hard suite."""
    directory = tmp_path_factory.mktemp("page")
    add_panels(suite.records, directory / "records")
    make_report(suite.write(directory))
    return directory / "report.html"


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    """A headless browser that logs what it asks the network for."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1300,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(120)
    driver.set_script_timeout(120)
    yield driver
    driver.quit()


def opened(driver, path: Path):
    """Load a page and wait until it has drawn itself."""
    from selenium.webdriver.support.ui import WebDriverWait

    driver.get(path.as_uri())
    WebDriverWait(driver, 120).until(lambda d: d.execute_script("return document.documentElement.dataset.state"))
    assert driver.execute_script("return document.documentElement.dataset.state") == "ready"
    return driver


def column(driver, head: str) -> list[str]:
    """The texts of a column, of the rows that are shown, from top to bottom."""
    script = """
      const heads = [...document.querySelectorAll("#results thead th")].map((th) => th.textContent.trim());
      const place = heads.findIndex((text) => text.startsWith(arguments[0]));
      return [...document.querySelectorAll("#results tbody tr[data-row]")].filter((line) => !line.hidden)
        .map((line) => line.children[place].textContent.trim());
    """
    return driver.execute_script(script, head)


def click_head(driver, head: str) -> None:
    driver.execute_script(
        "[...document.querySelectorAll('#results thead th')].find((th) => th.textContent.trim().startsWith(arguments[0]))"
        ".querySelector('button').click()",
        head,
    )


def choose(driver, control: str, value: str) -> None:
    script = "const s = document.querySelector(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('change'));"
    driver.execute_script(script, control, value)


def number(text: str) -> float:
    found = re.match(r"[+−-]?\d+\.?\d*", text)
    return float(found[0].replace("−", "-")) if found else float("nan")


def embedded(path: Path) -> dict:
    """The data that the page's script works with."""
    found = re.search(r'<script type="text/plain" id="data">([^<]*)</script>', path.read_text(encoding="utf-8"))
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


def test_the_page_is_one_small_file_that_names_no_other_host(page: Path):
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) < LIMIT_BYTES
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    assert "default-src 'none'" in text
    assert EVIL not in text


def test_every_row_says_how_to_run_it_again(suite: MadeSuite, page: Path):
    plan = suite.plan() | {"command": "python run_suite.py run made --results results/x --only 'LoRA*' --data-root /data"}
    command = row_command(plan, "LoRA (r=4)")
    assert command == "python run_suite.py run made --data-root /data --only 'LoRA (r=4)' --results rerun"
    assert row_command(plan, "a[b]*").endswith("--only 'a[[]b][*]' --results rerun")
    assert trial_command(plan, "a-s0") == "python run_suite.py reproduce a-s0 --suite made --results results/x"
    assert suite_command(plan | {"command": f"{plan['command']} --no-report --rerun=failed"}) == (
        "python run_suite.py run made --results results/x --data-root /data"
    )
    assert trial_command(suite.plan(), "a-s0") == "python run_suite.py reproduce a-s0 --suite made"
    rows = embedded(page)["rows"]
    assert all(row["command"].startswith("python run_suite.py run made --only ") for row in rows)
    by_label = {row["label"]: row for row in rows}
    assert by_label[EVIL]["n"] == 2
    assert len(by_label[EVIL]["absent"]) == 1
    assert [trial["status"] for trial in by_label["Never well"]["trials"]] == ["failed", "diverged"]


@needs_browser
def test_the_page_loads_without_errors_or_requests(chromium, page: Path):
    opened(chromium, page)
    assert [entry["message"] for entry in chromium.get_log("browser")] == []
    messages = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in urls if url.startswith("http")] == []
    assert {url for url in urls if not url.startswith(("data:", "blob:"))} == {page.as_uri()}
    assert chromium.title.startswith("Made-up suite [incomplete")
    assert chromium.execute_script("return document.querySelector('#problem').hidden")


@needs_browser
def test_sorting_orders_every_row_and_keeps_unknown_numbers_last(chromium, page: Path):
    opened(chromium, page)
    before = column(chromium, "#")
    click_head(chromium, "Δm")
    best_first = [number(text) for text in column(chromium, "Δm")]
    known = [value for value in best_first if value == value]
    assert known == sorted(known, reverse=True)
    assert best_first[-1] != best_first[-1]  # the row without a result
    click_head(chromium, "Δm")
    worst_first = [number(text) for text in column(chromium, "Δm")]
    assert [value for value in worst_first if value == value] == known[::-1]
    assert worst_first[-1] != worst_first[-1]
    assert sorted(column(chromium, "#"), key=int) == before
    click_head(chromium, "#")
    assert column(chromium, "#") == before


@needs_browser
def test_filtering_shows_the_rows_that_hold_every_word(chromium, page: Path):
    opened(chromium, page)
    box = chromium.find_element("css selector", "#filter")
    box.send_keys("lora r=8")
    assert column(chromium, "Method") == ["LoRA (r=8)", "MTLoRA (r=8)", "MTLoRA+ (r=8)"]
    assert chromium.find_element("css selector", "#count").text.startswith("3 of")
    box.clear()
    box.send_keys("incomplete")
    assert column(chromium, "Method") == [EVIL, "Never well"]
    box.clear()
    chromium.execute_script("document.querySelector('#filter').dispatchEvent(new Event('input'))")
    choose(chromium, "#family", "Adapter")
    assert len(column(chromium, "Method")) == 2
    choose(chromium, "#family", "")


@needs_browser
def test_axes_can_be_chosen_and_the_front_is_the_statistics_modules(chromium, suite: MadeSuite, page: Path):
    opened(chromium, page)
    rows = row_frame(suite.plan(), suite.records)
    for x, y, cost, score, sign in (
        ("params", "delta_m", rows["trainable_params"].astype(float), rows["delta_m_mean"].astype(float), 1),
        ("memory", "normals", rows["step_memory_bytes_mean"], rows["normals_mean_deg_mean"], -1),
    ):
        choose(chromium, "#pareto-x", x)
        choose(chromium, "#pareto-y", y)
        assert chromium.execute_script("return document.querySelector('#pareto-plot .xtitle').textContent").endswith("↓")
        traces = chromium.execute_script(
            "return document.querySelector('#pareto-plot').data.filter((t) => t.customdata)"
            ".flatMap((t) => t.customdata.map((n, i) => [n, t.x[i], t.y[i], t.marker.opacity[i]]))"
        )
        drawn = {int(place): opacity == 1 for place, _, _, opacity in traces}
        front = pareto_front(cost.to_numpy(), sign * score.to_numpy())
        assert drawn == {place + 1: bool(front[place]) for place in range(len(rows)) if score.notna().iloc[place]}
        twins = [opacity for place, _, _, opacity in traces if rows["label"].iloc[int(place) - 1].startswith("Twin")]
        assert len(set(twins)) == 1  # equal points stand or fall together


@needs_browser
def test_hovering_says_the_setting_and_its_run_ids(chromium, page: Path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.support.ui import WebDriverWait

    opened(chromium, page)
    place = chromium.execute_script(
        "const plot = document.querySelector('#pareto-plot'); plot.scrollIntoView({block: 'center'});"
        "const t = plot.data.find((t) => t.name === 'LoRA'), l = plot._fullLayout, box = plot.getBoundingClientRect();"
        "return [box.left + l.xaxis._offset + l.xaxis.d2p(t.x[1]), box.top + l.yaxis._offset + l.yaxis.d2p(t.y[1])]"
    )
    actions = ActionChains(chromium)
    actions.w3c_actions.pointer_action.move_to_location(int(place[0]) - 30, int(place[1]) - 30)
    actions.w3c_actions.pointer_action.move_to_location(round(place[0]), round(place[1]))
    actions.perform()
    text = WebDriverWait(chromium, 30).until(
        lambda d: d.execute_script("return document.querySelector('#pareto-plot .hoverlayer')?.textContent || ''")
    )
    assert "LoRA (r=8)" in text
    assert "rank = 8" in text
    assert "on the front with probability" in text
    assert all(f"row4-semseg_human_parts_saliency_normals-s{seed}" in text for seed in (0, 1, 2))


@needs_browser
def test_row_seven_opens_by_keyboard_and_says_how_to_rerun_it(chromium, page: Path):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    opened(chromium, page)
    label = embedded(page)["rows"][6]["label"]
    button = chromium.find_element("css selector", "#row-7 button.open")
    button.send_keys(Keys.ENTER)
    detail = WebDriverWait(chromium, 30).until(lambda d: d.find_element("css selector", "#row-7 + tr.detail"))
    WebDriverWait(chromium, 30).until(lambda d: "Configuration" in detail.text)
    assert f"--only '{label}'" in detail.text
    assert "run_suite.py reproduce" in detail.text
    assert all(part in detail.text for part in ("Setting", "Scores", "Costs", "Environment", "Trials", "seed", "Training loss"))
    assert button.get_attribute("aria-expanded") == "true"
    WebDriverWait(chromium, 30).until(lambda d: detail.find_elements("css selector", ".js-plotly-plot"))
    button.send_keys(Keys.ENTER)
    assert not chromium.find_elements("css selector", "#row-7 + tr.detail")


@needs_browser
def test_text_from_records_is_never_markup(chromium, page: Path):
    opened(chromium, page)
    place = next(i for i, row in enumerate(embedded(page)["rows"]) if row["label"] == EVIL) + 1
    chromium.execute_script("return toggle(document.querySelector(`#row-${arguments[0]}`), true)", place)
    assert EVIL in chromium.find_element("css selector", f"#row-{place} + tr.detail").text
    assert chromium.find_elements("css selector", "img[src=x]") == []
    assert chromium.title != "broken"


@needs_browser
def test_pictures_change_with_task_and_image(chromium, page: Path):
    opened(chromium, page)

    def shown() -> tuple[list[str], str]:
        images = chromium.find_elements("css selector", "#panels-grid img")
        return [image.get_attribute("src") for image in images], chromium.find_element("css selector", "#panels-grid").text

    first, text = shown()
    assert len(first) > 20
    assert "% wrong" in text
    assert all(source.startswith("data:image/") for source in first)
    choose(chromium, "#panels-task", "normals")
    choose(chromium, "#panels-image", "1")
    second, text = shown()
    assert second != first
    assert "no label, no error" in text


@needs_browser
def test_the_page_fits_a_phone_and_follows_dark_mode(chromium, page: Path):
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    opened(chromium, page)
    assert chromium.execute_script("return document.documentElement.scrollWidth") <= 390
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    grounds = []
    for media in ({"features": []}, dark):
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        grounds.append(chromium.execute_script("return getComputedStyle(document.body).backgroundColor"))
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert grounds[0] == "rgb(255, 255, 255)"
    assert grounds[1] != grounds[0]


@needs_browser
def test_printing_leaves_controls_out_and_keeps_table_figures_and_notes(chromium, page: Path):
    opened(chromium, page)
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    visible = {
        name: chromium.execute_script("return document.querySelector(arguments[0]).offsetHeight > 0", name)
        for name in ("nav", ".controls", "#pareto", "#results", ".print-only td", "#figures img", "#notes li")
    }
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    shown = {name for name, holds in visible.items() if holds}
    assert shown == {".print-only td", "#figures img", "#notes li"}  # in print the wide table is two that fit the sheet
    heads = [head.text for head in chromium.find_elements("css selector", "#results thead th")]
    printed = chromium.execute_script("return [...document.querySelectorAll('.print-only thead th')].map((head) => head.textContent)")
    assert {head.strip() for head in heads} <= set(printed)
    chromium.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    pdf = base64.b64decode(chromium.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"])
    chromium.execute_script("window.dispatchEvent(new Event('afterprint'))")
    assert pdf.startswith(b"%PDF")
    assert 5 < len(re.findall(rb"/Type\s*/Page\b", pdf)) <= PAGES_AT_MOST  # sections follow each other, no half-empty sheets


@needs_browser
def test_intervals_of_many_rows_are_off_until_asked_for_and_the_page_says_so(chromium, page: Path, tmp_path: Path):
    data = embedded(page)
    data["rows"] *= 5
    assert len(data["rows"]) > 80
    text = page.read_text(encoding="utf-8")
    many = tmp_path / "many.html"
    again = f'id="data">{packed(json.dumps(data).encode())}<'
    many.write_text(re.sub(r'id="data">[^<]*<', lambda _: again, text), encoding="utf-8")

    def drawn() -> bool:
        return chromium.execute_script("return document.querySelector('#pareto-plot').data.some((trace) => trace.error_y?.array?.length)")

    opened(chromium, page)
    assert drawn()
    assert "off at first" not in chromium.find_element("css selector", "#pareto-note").text
    opened(chromium, many)
    assert not drawn()
    assert (
        f"{len(data['rows'])} rows would cover the points and are off at first"
        in chromium.find_element("css selector", "#pareto-note").text
    )
    chromium.execute_script("document.querySelector('#pareto-bars').click()")
    assert drawn()


def test_the_page_names_twenty_damaged_files_and_how_many_there_are(suite: MadeSuite):
    damaged = {f"records/r{place}.json": "cut short" for place in range(50)}
    rows = row_frame(suite.plan(), suite.records)
    said = [text for _, answers in facts(suite.plan(), suite.records, rows, damaged) for text in answers if "amaged" in text]
    assert said == [*damage_notes(damaged)[:20], said[-1]]
    assert said[-1].startswith("50 files are damaged; the first 20")
    assert len(damage_notes(damaged)) == 50
