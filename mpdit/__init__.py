"""mpdit: ablations of magnitude preservation and conditioning in Diffusion Transformers.

`load` gives a trained model in memory. torch is imported when it is called, not with this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpdit.pretrained import load

__all__ = ["__version__", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``mpdit.load``; its libraries are imported at its first use (PEP 562)."""
    if name == "load":
        from mpdit.pretrained import load

        return load
    raise AttributeError(f"module 'mpdit' has no attribute {name!r}")
