"""The seeds of a grid: seeds of the comparisons, with their looks, and seeds of tuning."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

from mpdit.errors import nearest
from mpdit.grid.settings import Setting

MOST = 100_000
TUNING = 1_000_000
"""The first seed of tuning. Seeds of comparisons are smaller, so that the two never coincide."""


@dataclass(frozen=True)
class Seeds:
    """The seeds of the comparisons in their order.

    Attributes:
        looks: the rising numbers of seeds at which comparisons are decided; empty without looks.
    """

    every: tuple[int, ...] = (0,)
    looks: tuple[int, ...] = ()


def read_seeds(node: Setting | None) -> Seeds:
    """Read ``3``, ``[3, 5]``, or ``{looks: [3, 5, 8], from: 0}``.

    Raises:
        ConfigError: with the line of what is wrong.
    """
    if node is None:
        return Seeds()
    value = node.value
    if isinstance(value, dict):
        return _looks(node)
    if type(value) is int and 0 < value <= MOST:
        return Seeds(tuple(range(value)))
    if isinstance(value, list) and value and all(type(s) is int and 0 <= s < 2**31 for s in value):
        seed, times = Counter(value).most_common(1)[0]
        if times > 1:
            raise node.error(f"seed {seed} is listed twice")
        return Seeds(tuple(value))
    raise node.error(
        f"should be a number of seeds, or a list such as [0, 1], or looks such as "
        f"{{looks: [3, 5, 8]}}, not {value!r:.80}"
    )


def _looks(node: Setting) -> Seeds:
    from mpdit.decisions.family import LEAST_SEEDS  # here: it imports scipy

    known = ("looks", "from")
    for key in node.value:
        if key not in known:
            raise node.child(key).error(f"unknown key of seeds.{nearest(str(key), known)}")
    if "looks" not in node.value:
        raise node.error("should have looks, such as {looks: [3, 5, 8]}")
    first = node.value.get("from", 0)
    if type(first) is not int or not 0 <= first < TUNING:
        raise node.child("from").error(f"should be a seed from 0 to {TUNING - 1:,}")
    child = node.child("looks")
    looks = child.value
    if not isinstance(looks, list) or not looks or not all(type(look) is int for look in looks):
        raise child.error(f"should be numbers of seeds, such as [3, 5, 8], not {looks!r:.80}")
    if looks[0] < LEAST_SEEDS:
        grown = sorted({LEAST_SEEDS, *(look for look in looks if look > LEAST_SEEDS)})
        raise child.error(
            f"the first look is at {looks[0]}, but fewer than {LEAST_SEEDS} seeds give no verdict: "
            f"write looks: {grown}"
        )
    if any(after <= before for before, after in pairwise(looks)):
        raise child.error(f"looks have to grow: write looks: {sorted(set(looks))}")
    if looks[-1] > MOST:
        raise child.error(f"more than {MOST:,} seeds")
    return Seeds(tuple(range(first, first + looks[-1])), tuple(looks))


def read_tuning(tune: Setting | None) -> tuple[int, ...]:
    """Read the seeds on which each variant's point is chosen: ``seeds: 2`` beside the tune axes.

    Returns:
        the seeds; empty where points are compared on the seeds of the comparisons.

    Raises:
        ConfigError: with the line of what is wrong.
    """
    if tune is None or not isinstance(tune.value, dict):
        return ()
    if "seed" in tune.value:
        raise tune.child("seed").error(
            "write 'seeds: 2' in tune; the comparisons' seeds go to the top level"
        )
    if "seeds" not in tune.value:
        return ()
    node = tune.child("seeds")
    if len(tune.value) == 1:
        raise node.error("there is nothing to tune: add an axis, such as train.learning_rate")
    if type(node.value) is not int or not 0 < node.value <= 1000:
        raise node.error(f"should be a number of seeds from 1 to 1,000, not {node.value!r:.80}")
    return tuple(range(TUNING, TUNING + node.value))
