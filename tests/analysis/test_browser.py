"""The report in a real browser: headless Chromium, driven by Playwright."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import analysis.report.page
from analysis.loading.load import load

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no chromium (Debian: apt-get install chromium)"
)
SIZES = {"desktop": (1280, 900), "phone": (375, 812)}


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


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_renders_without_errors_network_or_overflow(
    browser: "sync_api.Browser", report: Path, size: str, scheme: str
) -> None:
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
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
