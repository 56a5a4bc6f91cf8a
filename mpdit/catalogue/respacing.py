"""Which of the 1000 timesteps an evenly spaced chain visits. No torch."""

from __future__ import annotations

from functools import cache
from itertools import accumulate, repeat
from typing import Literal

Respacing = Literal["dit", "nearest"]

TIMESTEPS = 1000
"""Steps of the diffusion process; the rows of the time table."""


@cache
def even_timesteps(steps: int, how: Respacing) -> tuple[int, ...]:
    """Return ``steps`` rising timesteps, evenly spaced from 0 to 999 (IDDPM, section 4).

    A single step is timestep 0 for ``dit``, and 999 for ``nearest``.

    Args:
        how: ``dit`` adds the stride up in floating point and rounds the sums, as DiT and
            guided-diffusion do; ``nearest`` rounds the exact positions. They round ties
            differently: of the step counts from 2 to 1000, 283 have timesteps that differ by one.
    """
    if steps == 1:
        return (0,) if how == "dit" else (TIMESTEPS - 1,)
    last, gaps = TIMESTEPS - 1, steps - 1
    if how == "nearest":
        return tuple(round(i * last / gaps) for i in range(steps))
    return tuple(round(place) for place in accumulate(repeat(last / gaps, gaps), initial=0.0))


def respacing_matters(steps: int) -> bool:
    """Whether ``dit`` and ``nearest`` sample at different timesteps.

    For a single step they do not: every solver uses timestep 999.
    """
    return steps > 1 and even_timesteps(steps, "dit") != even_timesteps(steps, "nearest")
