"""Sample sets that are not whole cost their pictures, and nothing else."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from analysis import NothingToShow, figures
from analysis.loading import published
from analysis.loading.load import load
from mpdit.disk.rundir import RunDir

Own = Callable[..., Path]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_whatever_bit_of_a_sample_set_is_flipped_it_is_read_or_said_to_be_damaged(
    own: Own, save: Callable[..., None]
) -> None:
    path = own(seeds=1)
    run = RunDir(next(path.glob("A-none*")))
    file = run.samples / "samples.npz"
    noise = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 1), np.uint8)
    save(file, noise // 3, np.arange(30) % 10)
    whole = file.read_bytes()
    study = load(path)
    images, labels = study.samples(run.name, 8)
    assert (images == noise[:8] // 3).all()
    assert list(labels) == list(range(8))
    damaged = 0
    for bit in range(0, 8 * len(whole), 23):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        try:
            study.samples(run.name, 8)
        except NothingToShow:
            damaged += 1
    assert damaged > len(whole) / 12


def test_a_damaged_sample_set_is_left_out_of_figure_and_summary(own: Own, tmp_path: Path) -> None:
    path = own(seeds=1)
    run = RunDir(next(path.glob("A-none*")))
    file = run.samples / "samples.npz"
    noise = np.random.default_rng(0).integers(0, 256, (500, 8, 8, 1), np.uint8)
    np.savez_compressed(file, noise // 3, np.arange(500) % 10)
    data = bytearray(file.read_bytes())
    for place in range(200, 260):
        data[place] ^= 0x5A
    file.write_bytes(data)
    study = load(path)
    with pytest.raises(NothingToShow, match="is damaged"):
        study.samples(run.name, 20)
    titles = [axes.get_title(loc="left") for axes in figures.samples(study).axes]
    assert "A-none" not in titles
    assert "E-all" in titles
    out = published.write(study, tmp_path / "out")
    assert not list(out.glob("A-none*/samples/*"))
    assert list(out.glob("E-all_s0*/samples/*"))
