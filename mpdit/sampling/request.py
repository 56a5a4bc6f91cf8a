"""A requested sample set of a trained run: the run's config with other options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mpdit.config import RunConfig, make_run
from mpdit.data.preflight import check_labels_trained
from mpdit.errors import ConfigError
from mpdit.sampling.drawing import Drawing


def asked(
    own: RunConfig,
    given: Mapping[str, Any],
    seed: int | None = None,
    classes: Sequence[int] | None = None,
) -> tuple[RunConfig, Drawing]:
    """The run's config with the given options, and the set they make.

    Args:
        given: options of the config's section ``sample``.
        seed: seed of the noise; None: the run's.
        classes: the classes to sample, in turn; None: all.

    Raises:
        ConfigError: about the option that is wrong, by its name.
    """
    tree = own.resolved()
    tree["sample"] |= given
    tree["seed"] = own.seed if seed is None else seed
    try:
        config = make_run(tree)
    except ConfigError as error:
        raise ConfigError(error.message, error.key.rpartition(".")[2]) from None
    check_labels_trained(config)
    drawing = replace(Drawing.of_run(config), run=own)
    if classes is None:
        return config, drawing
    known = own.data.spec.classes
    for label in classes:
        if not 0 <= label < known:
            raise ConfigError(f"{label} is not among the classes 0-{known - 1}", "classes")
    return config, replace(drawing, classes=tuple(dict.fromkeys(map(int, classes))))
