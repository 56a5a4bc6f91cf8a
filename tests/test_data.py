import torch
from conftest import tiny_config

from mpdit.data.batches import Batches
from mpdit.randomness import generator

CPU = torch.device("cpu")


def test_a_batch_depends_on_seed_and_step_only() -> None:
    config = tiny_config(train={"batch_size": 100})
    walked, jumped = Batches(config, CPU), Batches(config, CPU)
    for step in range(1, 40):
        expected = walked.batch(step)
    assert all(torch.equal(a, b) for a, b in zip(expected, jumped.batch(39), strict=True))
    other = Batches(tiny_config(train={"batch_size": 100}, seed=1), CPU).batch(39)
    assert not torch.equal(other[0], expected[0])


def test_every_image_is_seen_once_an_epoch_and_batches_run_on_across_its_end() -> None:
    batches = Batches(tiny_config(train={"batch_size": 1000}), CPU)
    n = len(batches.x)
    rows = torch.cat([batches._rows(start, 1000) for start in range(0, 3 * n, 1000)])[: 3 * n]
    assert torch.bincount(rows, minlength=n).tolist() == [3] * n


def test_every_purpose_and_index_has_a_stream_of_its_own() -> None:
    streams = [(0, "a", 0), (0, "a", 1), (0, "b", 0), (1, "a", 0)]
    drawn = [torch.randn(4, generator=generator(*stream)) for stream in streams]
    again = [torch.randn(4, generator=generator(*stream)) for stream in streams]
    assert all(torch.equal(a, b) for a, b in zip(drawn, again, strict=True))
    assert len({tuple(values.tolist()) for values in drawn}) == len(streams)
