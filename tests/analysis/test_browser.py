"""The report in a real browser: headless Chromium, driven by Playwright."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import analysis.report.page
from analysis.live import server
from analysis.loading.load import load
from mpdit.disk.files import append_row
from mpdit.disk.rundir import RunDir, RunState
from tests.helpers import synthetic

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no chromium (Debian: apt-get install chromium)"
)
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
SCREENS = [
    *(("light", "desktop"), ("dark", "phone")),
    *(
        pytest.param(*others, marks=pytest.mark.long)
        for others in (("light", "phone"), ("dark", "desktop"))
    ),
]


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(quickstart: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return analysis.report.page.write(load(quickstart), tmp_path_factory.mktemp("report"))


@pytest.fixture
def page(browser: "sync_api.Browser", report: Path) -> Iterator["sync_api.Page"]:
    page = browser.new_page()
    page.goto(report.as_uri())
    yield page
    page.close()


def column(page: "sync_api.Page", section: str, number: int) -> list[str]:
    cells = page.locator(f"#{section} tbody tr:not([hidden]) td:nth-child({number})")
    return [text.strip() for text in cells.all_inner_texts()]


def watched(
    browser: "sync_api.Browser", size: str, scheme: str
) -> "tuple[sync_api.Page, list[str], list[str]]":
    """An empty page; what its console will say, and the addresses that it will ask for."""
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    return page, said, asked


@pytest.mark.parametrize(("scheme", "size"), SCREENS)
def test_the_page_renders_without_errors_network_or_overflow(
    browser: "sync_api.Browser", report: Path, size: str, scheme: str
) -> None:
    page, said, asked = watched(browser, size, scheme)
    width, _ = SIZES[size]
    page.goto(report.as_uri())
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if size == "desktop":  # nor does a table
        boxes = page.locator(".scroll")
        assert all(boxes.evaluate_all("found => found.map(e => e.scrollWidth <= e.clientWidth)"))
    figures = page.locator("figure svg")
    assert figures.count() > 4
    for figure in figures.all():
        box = figure.bounding_box()
        assert box is not None
        assert 250 < box["width"] <= width
        assert box["height"] > 80
    page.close()


def test_figures_take_the_pages_colours_in_the_dark(
    browser: "sync_api.Browser", report: Path
) -> None:
    for scheme, ink in (("light", "rgb(31, 35, 40)"), ("dark", "rgb(230, 232, 235)")):
        page = browser.new_page(color_scheme=scheme)
        page.goto(report.as_uri())
        spine = page.locator("#loss figure svg g[id*=text_] g").first
        assert spine.evaluate("e => getComputedStyle(e).fill") == ink
        page.close()


def test_a_click_on_a_heading_sorts_and_the_third_restores_the_grids_order(
    page: "sync_api.Page",
) -> None:
    grid = column(page, "ladder", 1)
    heading = page.locator("#ladder th").nth(1)
    assert grid == ["A-none", "B-cosine", "C-weight-norm", "D-forced", "E-all"]
    heading.get_by_role("button").click()
    rising = ["E-all", "C-weight-norm", "D-forced", "B-cosine", "A-none"]
    assert column(page, "ladder", 1) == rising
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.get_by_role("button").click()
    assert column(page, "ladder", 1) == rising[::-1]
    heading.get_by_role("button").click()
    assert column(page, "ladder", 1) == grid
    assert heading.get_attribute("aria-sort") is None


def test_durations_and_counts_sort_as_numbers_and_empty_cells_go_last(
    page: "sync_api.Page",
) -> None:
    page.locator("#ladder th").get_by_role("button", name="train time").click()
    assert column(page, "ladder", 1)[0] == "A-none"
    page.locator("#ladder th").get_by_role("button", name="change").click()
    assert column(page, "ladder", 1)[0] == "E-all"
    assert column(page, "ladder", 1)[-1] == "A-none"


def test_typing_filters_rows_by_all_its_words(page: "sync_api.Page") -> None:
    field = page.get_by_label("Filter: Runs")
    field.fill("e-all_s 1")
    assert [name.split("_s")[0] for name in column(page, "runs", 1)]
    assert all("E-all_s" in name for name in column(page, "runs", 1))
    assert page.locator("#runs [role=status]").inner_text().endswith("of 14 rows")
    field.fill("no such run")
    assert column(page, "runs", 1) == []
    field.fill("")
    assert len(column(page, "runs", 1)) == 14


def test_the_answers_and_their_sentences_are_on_the_first_screen(page: "sync_api.Page") -> None:
    for part in ("#answers figure", ".summary"):
        box = page.locator(part).first.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < 720, part
    figure, table = (page.locator(part).first.bounding_box() for part in (".figures", "table"))
    assert figure is not None
    assert table is not None
    assert figure["y"] < table["y"]


def test_a_table_of_thirteen_columns_fits_the_page(
    browser: "sync_api.Browser", report: Path, tmp_path: Path
) -> None:
    cells = ["E-with-a-long-name_DiT-XS-2", "91.00 ± 3.35", "88.00 ± 2.48", "3"]
    cells += ["−11.0 % [−15.2, −6.5]", "< 0.001", "undecided", "32,843,520", "1 min 20 s", "15.20"]
    cells += ["−12.8", "7,608,832", "train.learning_rate 0.0001"]
    heads = ["variant", "FID@10000 ↓", "N → ∞", "seeds", "change", "p", "verdict", "parameters"]
    heads += ["train time", "FID@10000, arXiv:2505.19122", "Δ, %, arXiv:2505.19122"]
    heads += ["parameters, map-dit", "tuned"]
    rows = "".join(f"<td>{cell}</td>" for cell in cells)
    head = "".join(f"<th>{name}</th>" for name in heads)
    wide = f'<div class="scroll" id="wide"><table class="many"><tr>{head}</tr><tr>{rows}</tr>'
    file = tmp_path / "wide.html"
    file.write_text(report.read_text().replace("<nav", f"{wide}</table></div><nav", 1))
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(file.as_uri())
    assert page.locator("#wide").evaluate("e => e.scrollWidth <= e.clientWidth")
    page.close()


def test_on_paper_the_page_is_light_and_no_table_is_cut(
    browser: "sync_api.Browser", report: Path
) -> None:
    page = browser.new_page(viewport={"width": 700, "height": 990}, color_scheme="dark")
    page.goto(report.as_uri())
    page.emulate_media(media="print")
    ink = page.locator("h1").evaluate("e => getComputedStyle(e).color")
    assert ink == "rgb(31, 35, 40)"
    assert not page.locator("nav").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 700
    page.close()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[server.LiveServer, RunDir]]:
    """A served study whose last run trains."""
    path = synthetic.write_study(tmp_path / "quickstart")
    run = RunDir(next(path.glob("E-all_rotation-scale_s1-*")))
    (run.path / "evaluation.jsonl").unlink()
    rows = (run.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run.path / "metrics.jsonl").write_text("".join(rows[:3]))
    run.write_state(RunState(stage="train", step=150, steps=1000))
    with server.LiveServer(path, 0) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running, run
        running.shutdown()
        thread.join()


@pytest.mark.parametrize(("scheme", "size"), SCREENS)
def test_the_live_page_fits_and_asks_only_its_server(
    browser: "sync_api.Browser", live: tuple[server.LiveServer, RunDir], size: str, scheme: str
) -> None:
    running, _ = live
    page, said, asked = watched(browser, size, scheme)
    width, _ = SIZES[size]
    page.goto(running.address)
    for summary in page.locator(".groups summary").all():
        summary.click()
    page.wait_for_function("document.querySelectorAll('.inside tbody tr').length === 14")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = page.locator(".inside .scroll")
    assert all(boxes.evaluate_all("found => found.map(e => e.scrollWidth <= e.clientWidth)"))
    assert page.locator("#loss path").count() == 7
    assert said == []
    assert all(url.startswith((running.address, "data:")) for url in asked)
    page.close()


def test_the_live_page_shows_what_happens(
    browser: "sync_api.Browser", live: tuple[server.LiveServer, RunDir]
) -> None:
    running, run = live
    page = browser.new_page()
    page.goto(running.address)
    total = page.locator("#total")
    assert "13 done" in total.inner_text()
    line = page.locator('#loss path[data-at="6"]')
    before = line.get_attribute("d")
    row = {"step": 1000, "loss": 0.01}
    with run.lease():
        append_row(run.path / "metrics.jsonl", row)
        page.get_by_text("1 running", exact=True).first.wait_for(timeout=20_000)
        assert line.get_attribute("d") != before
    synthetic.write_evaluation(run, 32.5, 1)
    page.get_by_text("14 done", exact=True).first.wait_for(timeout=20_000)
    running.study._due = 0
    page.locator('.groups [data-at="6"] .verdict').wait_for(timeout=20_000)
    page.close()


def test_a_thousand_runs_are_shown_by_variant_and_page(
    browser: "sync_api.Browser", tmp_path: Path
) -> None:
    entries = [
        {"name": f"v{i // 5}_s{i % 5}-{i:08x}", "variant": f"v{i // 5}", "seed": i % 5}
        for i in range(1000)
    ]
    (tmp_path / "study.json").write_text(json.dumps({"study": "thousand", "runs": entries}))
    with server.LiveServer(tmp_path, 0) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        page = browser.new_page()
        page.goto(running.address)
        names = page.locator(".groups .name")
        assert page.locator("tr").count() == 0  # no run before its variant is opened
        assert names.all_inner_texts() == [f"v{i}" for i in range(16)]
        page.get_by_label("Next variants").click()
        assert names.all_inner_texts() == [f"v{i}" for i in range(16, 32)]
        page.get_by_label("Filter variants").fill("v19 planned")
        assert names.all_inner_texts() == ["v19", *(f"v19{i}" for i in range(10))]
        page.close()
        running.shutdown()
        thread.join()
