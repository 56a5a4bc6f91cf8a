"""The data sets, each a row: its shape, its extractor, and its loader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from mpdit.catalogue.methods import EXTRACTORS
from mpdit.catalogue.registry import Code, Registry, Row, decorator


@dataclass(frozen=True)
class Dataset:
    """A data set's latent or pixel channels, side (pixels) and number of classes, and the
    extractor in whose features its samples are compared."""

    channels: int
    size: int
    classes: int
    extractor: str


Kind = Literal["memory", "folder", "latents"]


@dataclass(frozen=True, kw_only=True)
class DatasetRow(Row):
    """A data set by name.

    Attributes:
        shape: None if the config sets it (``channels``, ``size``, ``classes``).
        kind: images that fit in memory, a folder of image files, or a store of latents.
        implementation: for kind ``memory``, ``(data: DataConfig, split) -> (pixels, labels)`` for
            the splits ``train`` and ``test``: float32 (images, channels, size, size) in [-1, 1],
            and int64 (images).
        check: ``(data: DataConfig) -> None``: raise ConfigError when it is not on this machine.
        reference_file, reference_url: for latents, the file of real images to compare with.
    """

    shape: Dataset | None = None
    kind: Kind = "memory"
    check: Code | None = None
    reference_file: str = "reference.npz"
    reference_url: str = ""

    def check_against(self, _others: Mapping[str, DatasetRow]) -> None:
        if self.shape is not None:
            EXTRACTORS.find(self.shape.extractor, f"the data set {self.name!r}: extractor")

    def recorded(self) -> dict[str, Any]:
        return asdict(self.shape) if self.shape else {}

    @classmethod
    def from_record(cls, name: str, facts: Mapping[str, Any]) -> Self:
        return cls(name=name, shape=Dataset(**facts))


_HERE = "mpdit.data.datasets"

DATASETS = Registry(
    "data set",
    DatasetRow,
    "data.name",
    [
        DatasetRow(
            name="digits",
            does="scikit-learn's 1,797 handwritten digits, 8×8 grey",
            source="UCI optical recognition of handwritten digits",
            shape=Dataset(channels=1, size=8, classes=10, extractor="digits"),
            implementation=f"{_HERE}:load_digits",
        ),
        DatasetRow(
            name="fashion-mnist",
            does="70,000 pictures of clothes, 28×28 grey, from four IDX files",
            source="arXiv:1708.07747",
            shape=Dataset(channels=1, size=28, classes=10, extractor="fashion-mnist"),
            implementation=f"{_HERE}:load_fashion",
            check=f"{_HERE}:check_fashion",
        ),
        DatasetRow(
            name="imagenet128-latents",
            does="ImageNet-1k at 128² through sd-vae-ft-mse, 4×16×16",
            source="the paper's data",
            shape=Dataset(channels=4, size=16, classes=1000, extractor="inception"),
            kind="latents",
            check=f"{_HERE}:latent_store",
            reference_file="VIRTUAL_imagenet128_labeled.npz",
            reference_url="https://openaipublic.blob.core.windows.net/diffusion/jul-2021/"
            "ref_batches/imagenet/128/VIRTUAL_imagenet128_labeled.npz",
        ),
        DatasetRow(
            name="latents",
            does="a latent store of any shape, made by mpdit data encode",
            kind="latents",
            check=f"{_HERE}:latent_store",
        ),
        DatasetRow(
            name="folder",
            does="a folder of images, a sub-folder per class",
            kind="folder",
            check=f"{_HERE}:check_folder",
        ),
    ],
)


def dataset(
    name: str,
    *,
    channels: int,
    size: int,
    classes: int,
    extractor: str,
    does: str,
    source: str = "",
) -> Callable[[Any], Any]:
    """Register a function ``(data, split) -> (pixels, labels)`` as a data set that fits in memory.

    split is ``train`` or ``test``; pixels are float32 (images, channels, size, size) in [-1, 1],
    labels int64 (images). data is the config's section ``data``.

    Args:
        name: the data set's name in ``data.name``.
        channels: channels of an image.
        size: the side of an image in pixels.
        classes: the number of classes; labels are 0 … classes − 1.
        extractor: the network in whose features samples are compared, such as ``inception``.
        does: what the data are, in one line.
        source: where the data come from.

    Raises:
        ConfigError: when the name is taken, or the extractor unknown.
    """
    shape = Dataset(channels, size, classes, extractor)
    return decorator(DATASETS, name=name, does=does, source=source, shape=shape)
