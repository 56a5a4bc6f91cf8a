import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

import analysis.report.page
from analysis import figures
from analysis.__main__ import main
from analysis.loading.load import load
from analysis.report import terminal

Own = Callable[..., Path]
NOT_MEASURED = {"distance_training", "sweep", "main_effects", "interactions", "tuning_curve"}
SHOWN = [name for name in figures.FIGURES if name not in NOT_MEASURED]
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Fails on a tag that does not close, or an attribute or id that is there twice."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []
        assert len(self.ids) == len(set(self.ids)), "an id is there twice"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.tags.append((tag, dict(attrs)))
        self.ids += [str(value) for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def one_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing is what takes long."""
    monkeypatch.setattr(analysis.report.page, "FIGURES", {"loss": figures.FIGURES["loss"]})


@pytest.fixture(scope="module")
def page(quickstart: Path) -> Path:
    return analysis.report.page.write(load(quickstart))


def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere(page: Path) -> None:
    html = page.read_text()
    parsed = Page(html)
    tags = [tag for tag, _ in parsed.tags]
    assert tags.count("svg") == len(SHOWN)
    assert tags.count("script") == 1
    assert not {"iframe", "link", "object"} & set(tags)
    assert "@import" not in html
    for _, attributes in parsed.tags:
        for name in ("src", "href", "xlink:href", "style"):
            value = attributes.get(name) or ""
            assert "//" not in value.removeprefix("data:") or value.startswith("data:image/png")
    assert "url(http" not in html
    used = set(re.findall(r'(?:href="#|url\(#)([\w-]+)', html))
    assert used <= set(parsed.ids)


def test_links_and_files_are_there(page: Path) -> None:
    links = [attributes["href"] for tag, attributes in Page(page.read_text()).tags if tag == "a"]
    contents = [link for link in links if str(link).startswith("#")]
    assert {"#ladder", "#distance", "#runs"} <= set(contents)
    links = [link for link in links if link not in contents]
    assert len(links) == 6 * 3 + len(SHOWN) * 3 + 14 * 3
    for link in links:
        assert (page.parent / str(link)).is_file(), link
    names = {str(file.relative_to(page.parent)) for file in page.parent.rglob("*.*")}
    for table in ("ladder", "modulation"):
        assert {f"tables/{table}.{kind}" for kind in ("md", "tex", "csv")} <= names
    for figure in SHOWN:
        assert {f"figures/{figure}.{kind}" for kind in ("png", "pdf", "svg")} <= names


def test_the_page_says_what_may_be_concluded_and_of_what(page: Path) -> None:
    text = " ".join(Page(page.read_text()).text.split())
    assert "14 of 14 runs done, 7 variants." in text
    said = "E-all against A-none: undecided, FD-digits@1000 −26.1 % [−42.3, −5.4] (p = 0.019"
    assert said in text
    assert "between 1000 samples and 1797 images of digits (all)" in text
    assert "weights w0, reference r0" in text
    assert "31.00 ± 12.71" in text
    assert "FID" not in text
    assert "Missing" not in text
    assert "not all made alike" not in text


def test_the_same_results_give_the_same_bytes(page: Path, quickstart: Path) -> None:
    files = [page, *(page.parent / "figures").iterdir(), *(page.parent / "tables").iterdir()]
    before = {file: file.read_bytes() for file in files}
    analysis.report.page.write(load(quickstart))
    assert {file: file.read_bytes() for file in files} == before


@pytest.mark.usefixtures("one_figure")
def test_what_users_wrote_is_text_not_markup(own: Own) -> None:
    evil = "<script>alert(1)</script>\"'&{{ 7*7 }}"
    path = own(seeds=1, A_none=evil)
    run = next(path.glob("B-cosine*"))
    (run / "evaluation.jsonl").unlink()
    state = {"stage": "train", "step": 1, "steps": 2, "error": "<img src=x onerror=alert(2)>"}
    (run / "state.json").write_text(json.dumps(state))
    html = analysis.report.page.write(load(path)).read_text()
    parsed = Page(html)
    tags = [tag for tag, _ in parsed.tags]
    assert "img" not in tags
    assert tags.count("script") == 1  # the page's own
    assert evil in parsed.text
    assert "<img src=x onerror=alert(2)>" in parsed.text


@pytest.mark.usefixtures("one_figure")
def test_missing_runs_and_differing_environments_are_named(own: Own) -> None:
    path = own()
    run = next(path.glob("B-cosine_s1*"))
    (run / "evaluation.jsonl").unlink()
    other = next(path.glob("E-all_s0*")) / "provenance.json"
    other.write_text(other.read_text().replace("laptop", "cluster"))
    text = " ".join(Page(analysis.report.page.write(load(path)).read_text()).text.split())
    assert "13 of 14 runs done" in text
    assert f"{run.name}: unfinished (done, step 1,000 of 1,000)" in text
    assert f"host cluster: 1 run ({other.parent.name})" in text
    assert "host laptop: 13 runs" in text


@pytest.mark.usefixtures("one_figure")
def test_a_study_that_has_just_begun_has_a_report(own: Own) -> None:
    path = own(seeds=1)
    for file in path.glob("*_s0-*/*"):
        if file.is_file() and file.name != "config.yaml":
            file.unlink()
    text = " ".join(Page(analysis.report.page.write(load(path)).read_text()).text.split())
    assert "0 of 7 runs done" in text
    assert "No run has been evaluated yet." in text
    assert text.count("not started") == 7


def test_files_that_no_longer_apply_are_removed(own: Own) -> None:
    path = own(seeds=1)
    old = path / "report"
    for folder in (old / "tables", old / "figures"):
        folder.mkdir(parents=True)
    for name in ("tables/mine.md", "tables/ladder.md", "figures/distance.png"):
        (old / name).write_text("old")
    for file in path.glob("*/evaluation.jsonl"):
        file.unlink()
    analysis.report.page.write(load(path))
    assert {file.stem for file in (old / "tables").iterdir()} == {"mine", "overhead", "inventory"}
    assert not (old / "figures" / "distance.png").exists()
    assert (old / "figures" / "loss.png").exists()


@pytest.mark.parametrize("long", [False, True])
def test_the_terminal_table_fits_80_columns(own: Own, long: bool) -> None:
    names = {"A_none": "[bold]everything-off_" + "x" * 60, "E_all": "[/]"} if long else {}
    study = load(own(**names))
    console = Console(width=80, record=True, force_terminal=True, quiet=False, color_system=None)
    with console.capture() as captured:
        terminal.show(study, console)
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "−26.1 % [−42.3, −5.4]" in text or long
    assert ("[bold]" in text) == long
    assert "baseline" in text


@pytest.mark.usefixtures("one_figure")
def test_the_command_prints_the_table_and_where_the_report_is(
    own: Own, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([str(own(seeds=1)), "--out", str(tmp_path / "elsewhere")]) == 0
    printed = capsys.readouterr().out
    assert "E-all_rotation-scale" in printed
    assert printed.splitlines()[-1] == f"report: {tmp_path / 'elsewhere' / 'report.html'}"
    links = re.findall(
        r'href="([^"#]+config.yaml)"', (tmp_path / "elsewhere/report.html").read_text()
    )
    assert len(links) == 7
    assert all((tmp_path / "elsewhere" / link).is_file() for link in links)


def test_what_the_user_has_to_mend_is_one_line_and_exit_status_2(
    quickstart: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    for arguments, said in (
        ([str(quickstart.with_name("quickstrat"))], "Did you mean"),
        ([str(quickstart), "--out", str(in_the_way)], "cannot write the report"),
    ):
        assert main(arguments) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("error: ")
        assert printed.err.count("\n") == 1
        assert said in printed.err
