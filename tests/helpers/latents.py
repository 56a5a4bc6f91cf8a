"""A latent store of random posteriors."""

from pathlib import Path

import numpy as np

from mpdit.data.latents import LatentSource, StorePlan
from mpdit.encoding.build import build_store
from mpdit.encoding.shards import Encoder

SOURCE = LatentSource(data="made up", hash="0" * 16, pixels=64, vae="none", vae_hash=None)


class MadeUp(Encoder):
    """Random posteriors; the mirrored orientation's means lie 100 higher, so that it is told."""

    def __init__(self, images: int) -> None:
        shape = {"channels": 4, "size": 8, "classes": 3, "flips": 2, "shard_images": 16}
        self.plan = StorePlan(images=images, source=SOURCE, **shape)
        random = np.random.default_rng(0)
        self.labels = np.arange(images) % 3
        mean = random.standard_normal((images, 4, 8, 8)) * [[[[1]], [[2]], [[3]], [[4]]]]
        mean = np.stack([mean, mean[..., ::-1] + 100], axis=1)
        self.all = np.stack([mean, np.full_like(mean, 0.5)], axis=2).astype(np.float16)
        self.made: list[int] = []

    def moments(self, start, stop, advance):
        self.made.append(start)
        advance(stop - start)
        return self.all[start:stop]

    def content(self, start, stop):
        return str(hash(self.all[start:stop].tobytes()))


def make_store(path: Path, images: int) -> Path:
    build_store(MadeUp(images), path, rank=0, processes=1)
    return path
