"""A figure or a table is one decorated function in one file."""

import functools
from pathlib import Path

import pandas as pd
import pytest

from analysis import Study, figures, tables
from analysis.exhibits import Exhibits
from analysis.figures import panels
from analysis.figures.figure import FIGURES
from analysis.tables.table import TABLES, TableExhibit

MODULE = """
from {package} import FOUND

def {name}(study):
    return study

FOUND.register({name}, title="{name}", caption="", text=None, place={place})
"""


def test_the_report_has_them_in_the_order_of_their_places() -> None:
    assert list(FIGURES) == [
        *(
            "answers",
            "distance",
            "samples",
            "distance_parameters",
            "magnitude_depth",
            "magnitude_training",
        ),
        *("magnitudes", "loss", "distance_training", "sweep", "tuning_curve", "main_effects"),
        *("interactions", "speed"),
    ]
    assert list(TABLES) == [
        *("verdicts", "ladder_by_size", "ladder", "modulation", "others", "contributions"),
        *("main_effects", "interactions", "tuning", "metrics", "overhead", "inventory"),
    ]
    for exhibits in (FIGURES, TABLES):
        assert len({exhibit.place for exhibit in exhibits.values()}) == len(exhibits)


def test_each_has_a_title_a_caption_and_a_name_in_its_package() -> None:
    for package, exhibits in ((figures, FIGURES), (tables, TABLES)):
        for name, exhibit in exhibits.items():
            assert exhibit.name == name
            assert exhibit.title
            assert exhibit.caption.endswith(".")
            assert getattr(package, name) is exhibit.make


def test_a_module_of_the_package_is_found_wherever_it_is_in_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "shown"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from analysis.exhibits import Exhibits\n"
        "from analysis.tables.table import TableExhibit\n"
        "FOUND = Exhibits('table', TableExhibit)\n"
        "MADE = FOUND.discover(__name__, __path__)\n"
    )
    for name, place in (("early", 20), ("late", 10)):
        (package / f"{name}.py").write_text(
            MODULE.format(package="shown", name=f"{name}_table", place=place)
        )
    monkeypatch.syspath_prepend(tmp_path)
    import shown  # type: ignore[import-not-found]

    assert list(shown.FOUND) == list(shown.MADE) == ["late_table", "early_table"]


def test_a_name_that_is_taken_is_an_error_that_names_both() -> None:
    found = Exhibits("table", TableExhibit)

    def ladder(study: Study) -> pd.DataFrame:
        return study.runs

    fields = {"title": "", "caption": "", "text": lambda numbers: numbers, "place": 1}
    found.register(ladder, **fields)
    with pytest.raises(ValueError, match=r"two tables are named 'ladder'") as error:
        found.register(tables.ladder, **fields)
    for make in (ladder, tables.ladder):
        code = make.__code__
        assert f"{code.co_filename}:{code.co_firstlineno}" in str(error.value)


def test_a_figure_says_how_many_variants_it_leaves_out(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = FIGURES["loss"]
    assert few.save(study, tmp_path / "loss")[1] == few.caption
    fewer = functools.partial(panels.shown, limit=3)
    monkeypatch.setattr(panels, "shown", lambda study, there: fewer(study, there))
    caption = few.save(study, tmp_path / "loss")[1]
    assert caption == f"{few.caption} Drawn: 3 of 7 variants, the baseline and the best."
