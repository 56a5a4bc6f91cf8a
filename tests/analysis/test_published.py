"""A published summary says what the study says."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import NothingToShow, Study, figures, tables
from analysis.__main__ import main
from analysis.judging import conclusions
from analysis.loading import published
from analysis.loading.load import load
from mpdit.catalogue import PAPERS_FLAGS
from mpdit.disk.rundir import RunDir
from mpdit.errors import ConfigError
from tests.helpers import synthetic

Own = Callable[..., Path]


def test_the_summary_has_the_studys_frames(study: Study, tmp_path: Path) -> None:
    summary = load(published.write(study, tmp_path / "summary"))
    assert (summary.name, summary.variants) == (study.name, study.variants)
    for name in published.FRAMES:
        frame, kept = getattr(study, name), getattr(summary, name)
        same = [column for column in frame if column != "folder"]
        pd.testing.assert_frame_equal(kept[same], frame[same], obj=name, check_categorical=False)
    assert summary.runs["flags"].iloc[-1] == PAPERS_FLAGS
    pd.testing.assert_frame_equal(tables.ladder(summary), tables.ladder(study))
    assert conclusions.statements(summary) == conclusions.statements(study)


def test_the_summary_has_the_first_images_of_each_ema_width(own: Own, tmp_path: Path) -> None:
    path = own()
    for entry in path.glob("*/config.yaml"):
        run = RunDir(entry.parent)
        for name in ("samples_ema0.1", "repeat1"):
            (run.samples / f"{name}.npz").write_bytes((run.samples / "samples.npz").read_bytes())
    study = load(path)
    summary = load(published.write(study, tmp_path / "summary"))
    run_name = study.runs["run"].iloc[0]
    for name in ("samples", "samples_ema0.1"):
        images, labels = summary.samples(run_name, 500, name)
        assert len(images) == len(labels) == published.IMAGES
        assert np.array_equal(images, study.samples(run_name, published.IMAGES, name)[0])
    with pytest.raises(NothingToShow, match="repeat1"):
        summary.samples(run_name, 1, "repeat1")
    drawn = [figures.samples(s).axes[0].images[0].get_array() for s in (study, summary)]
    assert np.array_equal(*drawn)


def test_the_commands_publish_and_read_it(own: Own, capsys: pytest.CaptureFixture[str]) -> None:
    path = own(seeds=1)
    assert main(["publish", str(path)]) == 0
    summary = path.parent / "published" / "own"
    assert capsys.readouterr().out == f"published: {summary}\n"
    assert sum(file.stat().st_size for file in summary.rglob("*.*")) < 300_000
    assert main(["publish", str(summary)]) == 2
    assert "is already a published summary" in capsys.readouterr().err
    (summary / "metrics.parquet").unlink()
    assert main([str(summary)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "not a complete published summary" in error


def test_a_torn_summary_is_one_message(study: Study, tmp_path: Path) -> None:
    out = published.write(study, tmp_path / "summary")
    (out / "runs.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match="not a complete published summary"):
        load(out)


def test_a_tuned_study_stays_tuned(tmp_path: Path) -> None:
    entries = []
    for rate in (1e-3, 1e-2):
        run = synthetic.config({}, 0, learning_rate=rate)
        folder = RunDir(tmp_path / "own" / f"a_s0-{run.id}")
        synthetic.write_run(folder, run, 1 / rate)
        tune = {"tune": {"train.learning_rate": rate}}
        entries.append(synthetic.entry(folder, run, "a") | tune)
    study = load(synthetic.write_listing(tmp_path / "own", entries))
    summary = load(published.write(study, tmp_path / "summary"))
    assert summary.tune == study.tune == ("tune.train.learning_rate",)
