"""Training batches as a function of (seed, step)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Float16, Int64, Shaped, UInt8
from torch import Tensor

from mpdit.catalogue import DATASETS
from mpdit.config import RunConfig
from mpdit.data import datasets
from mpdit.data.images import ImageFolder, ImageReader
from mpdit.data.latents import LatentStore
from mpdit.runtime.randomness import generator

Noise = Callable[[], Tensor]
"""Draws standard normal noise for the rows, where it is needed."""

AHEAD, READERS = 4, 16
"""Batches that are read ahead, and threads that read one batch of latents: on a network file
system each row takes a millisecond."""
HELD_SHARE = 4
"""Latents are held on a GPU when they take less than a quarter of its free memory."""


def microbatches(count: int, most: int | None, *, even: bool) -> int:
    """Return the number of microbatches of at most ``most`` images for a shard of ``count``.

    Args:
        even: whether all should have one size, because each size is compiled separately; then there
            are up to twice as many, if that divides the shard.
    """
    least = -(-count // (most or count))
    dividing = (n for n in range(least, min(2 * least, count) + 1) if count % n == 0)
    return next(dividing, least) if even else least


class Reader(ABC):
    """Reads images in two steps, of which the first can run ahead of time."""

    labels: Int64[Tensor, " images"]
    """On the CPU."""
    flips: int = 1
    slow: bool = False
    """Whether reading is worth doing ahead."""

    @abstractmethod
    def read(
        self, rows: Int64[Tensor, " batch"], flips: Int64[Tensor, " batch"]
    ) -> Shaped[Tensor, "batch ..."]:
        """Read the data of the chosen images, on the CPU; called from a thread."""

    @abstractmethod
    def x0(
        self, read: Shaped[Tensor, "batch ..."], noise: Noise
    ) -> Float[Tensor, "batch channels height width"]:
        """Turn data that were read into the images that a model is trained on, on the device."""


class Batches:
    """The train split; batch ``step`` (from 1) does not depend on earlier batches.

    Every epoch has its own permutation, and batches continue across its end, so each image is seen
    equally often. Random numbers are drawn for the whole batch, so its rows have the same bits in
    every process; only the requested rows are read. While a step is computed, the same rows of the
    next `AHEAD` batches are read from disk. The order of an epoch takes 8 bytes an image.
    """

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        """Open the data.

        Raises:
            ConfigError: when it is missing or damaged.
        """
        self.reader = _open(config, device)
        self.device, self.seed, self.size = device, config.seed, config.train.batch_size
        spec = config.data.spec
        self.shape = (spec.channels, spec.size, spec.size)
        self._order = lru_cache(maxsize=2)(self._permutation)
        self._ahead_of_time = ThreadPoolExecutor(AHEAD, thread_name_prefix="batches")
        self._ahead: dict[tuple[int, int, int], Future[Tensor]] = {}

    def __len__(self) -> int:
        """Images in the train split."""
        return len(self.reader.labels)

    def batch(
        self, step: int, rows: slice = slice(None)
    ) -> tuple[Float[Tensor, "rows channels height width"], Int64[Tensor, " rows"]]:
        """Rows of the batch of training step ``step``: pixels in [-1, 1] or latents, and labels.

        Latents are drawn from their posteriors, one of the stored orientations picked at each
        visit, and normalized by the store's mean and standard deviation per channel.
        """
        start, stop, _ = rows.indices(self.size)
        if not self.reader.slow:
            read = self._read(step, start, stop)
        else:
            future = self._ahead.pop((step, start, stop), None)
            read = future.result() if future is not None else self._read(step, start, stop)
            self._read_ahead(step, start, stop)

        def noise() -> Float[Tensor, "rows channels height width"]:
            random = generator(self.seed, "posterior", step, self.device)
            whole = torch.randn((self.size, *self.shape), generator=random, device=self.device)
            return whole[start:stop]

        labels = self.reader.labels[self._rows(step)[start:stop]]
        return self.reader.x0(read, noise), to_device(labels, self.device)

    def images(
        self, rows: Int64[Tensor, " rows"]
    ) -> tuple[Float[Tensor, "rows channels height width"], Int64[Tensor, " rows"]]:
        """Images of the train split by number, and labels; latents are their posteriors' means."""
        read = self.reader.read(rows, torch.zeros_like(rows))
        labels = to_device(self.reader.labels[rows], self.device)
        return self.reader.x0(read, lambda: torch.zeros((), device=self.device)), labels

    def _read(self, step: int, start: int, stop: int) -> Shaped[Tensor, "rows ..."]:
        return self.reader.read(self._rows(step)[start:stop], self._flips(step)[start:stop])

    def _read_ahead(self, step: int, start: int, stop: int) -> None:
        """Read these rows of the batches after this step; drop data read for earlier steps."""
        wanted = {key: future for key, future in self._ahead.items() if key[0] >= step}
        for later in range(step + 1, step + 1 + AHEAD):
            if (key := (later, start, stop)) not in wanted:
                rows, flips = self._rows(later)[start:stop], self._flips(later)[start:stop]
                wanted[key] = self._ahead_of_time.submit(self.reader.read, rows, flips)
        self._ahead = {key: wanted[key] for key in wanted if key[0] <= step + AHEAD}

    def _flips(self, step: int) -> Int64[Tensor, " batch"]:
        """Which of the stored orientations each image of the batch has."""
        if self.reader.flips == 1:
            return torch.zeros(self.size, dtype=torch.long)
        random = generator(self.seed, "flip", step)
        return torch.randint(self.reader.flips, (self.size,), generator=random)

    def _rows(self, step: int) -> Int64[Tensor, " batch"]:
        """The images of a batch, by number."""
        taken, parts = (step - 1) * self.size, []
        while taken < step * self.size:
            epoch, offset = divmod(taken, len(self))
            parts.append(self._order(epoch)[offset : offset + step * self.size - taken])
            taken += len(parts[-1])
        return torch.cat(parts)

    def _permutation(self, epoch: int) -> Int64[Tensor, " images"]:
        return torch.randperm(len(self), generator=generator(self.seed, "epoch", epoch))


def _open(config: RunConfig, device: torch.device) -> Reader:
    data = config.data
    if DATASETS.find(data.name).kind == "folder":
        return _Folder(
            datasets.image_folder(data).split("train"), data.spec.size, data.spec.channels, device
        )
    if not datasets.is_latents(data):
        return _Pixels(datasets.load(data, "train"), device)
    store = datasets.latent_store(data)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if store.manifest.bytes * HELD_SHARE < free:
            return _HeldLatents(store, device)
    return _Latents(store, device)


class _Pixels(Reader):
    """Images held on the device."""

    def __init__(self, images: datasets.Images, device: torch.device) -> None:
        self.labels = torch.from_numpy(images.labels)
        self.pixels = torch.from_numpy(images.pixels).to(device)

    def read(
        self, rows: Int64[Tensor, " batch"], flips: Int64[Tensor, " batch"]
    ) -> Int64[Tensor, " batch"]:
        del flips
        return rows

    def x0(
        self, read: Shaped[Tensor, "batch ..."], noise: Noise
    ) -> Float[Tensor, "batch channels height width"]:
        del noise
        return self.pixels[to_device(read, self.pixels.device)]


class _Folder(Reader):
    """Image files, decoded at every visit: nothing is kept of them but their names."""

    slow = True

    def __init__(self, folder: ImageFolder, size: int, channels: int, device: torch.device) -> None:
        self.device = device
        self.labels = torch.from_numpy(folder.labels)
        self._images = ImageReader(folder, size, channels)

    def read(
        self, rows: Int64[Tensor, " batch"], flips: Int64[Tensor, " batch"]
    ) -> UInt8[Tensor, "batch channels height width"]:
        del flips
        return torch.from_numpy(self._images.read(rows.tolist()))

    def x0(
        self, read: Shaped[Tensor, "batch ..."], noise: Noise
    ) -> Float[Tensor, "batch channels height width"]:
        del noise
        return to_device(read, self.device).float() / 127.5 - 1


class _Latents(Reader):
    """Latents in a store, read from disk at every visit, in several threads."""

    slow = True

    def __init__(self, store: LatentStore, device: torch.device) -> None:
        self.store, self.device = store, device
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="latents")
        manifest = store.manifest
        self.labels = torch.from_numpy(store.labels)
        self.flips = manifest.flips
        self.mean, self.std = (
            torch.tensor(values, device=device).view(-1, 1, 1)
            for values in (manifest.mean, manifest.std)
        )

    def read(
        self, rows: Int64[Tensor, " batch"], flips: Int64[Tensor, " batch"]
    ) -> Shaped[Tensor, "batch ..."]:
        parts = min(READERS, len(rows)) or 1
        shares = (np.array_split(numbers.numpy(), parts) for numbers in (rows, flips))
        return torch.from_numpy(np.concatenate([*self._readers.map(self.store.read, *shares)]))

    def x0(
        self,
        read: Shaped[Tensor, "batch ..."],
        noise: Noise,
    ) -> Float[Tensor, "batch channels height width"]:
        """(mean + std · noise), normalized; one rounding an operation, so rows stay independent."""
        mean, std = self._moments(read).float().unbind(1)
        return (mean + std * noise() - self.mean) / self.std

    def _moments(self, read: Tensor) -> Float16[Tensor, "batch 2 channels height width"]:
        return to_device(read, self.device)


class _HeldLatents(_Latents):
    """Latents held on the device."""

    slow = False

    def __init__(self, store: LatentStore, device: torch.device) -> None:
        super().__init__(store, device)
        plan = store.manifest
        held = (plan.images * plan.flips, *plan.row_shape)
        self.moments = torch.empty(held, dtype=torch.float16, device=device)
        for shard in range(plan.shards):
            start, stop = (bound * plan.flips for bound in plan.shard_range(shard))
            shard_moments = torch.from_numpy(store.read_shard(shard))
            self.moments[start:stop] = shard_moments.flatten(0, 1).to(device)

    def read(
        self, rows: Int64[Tensor, " batch"], flips: Int64[Tensor, " batch"]
    ) -> Int64[Tensor, " batch"]:
        return rows * self.flips + flips

    def _moments(self, read: Tensor) -> Float16[Tensor, "batch 2 channels height width"]:
        return self.moments[to_device(read, self.device)]


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy on the device; the host does not wait for a GPU."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor
