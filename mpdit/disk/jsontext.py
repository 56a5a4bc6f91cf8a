"""JSON of files that others may have damaged."""

from __future__ import annotations

import json
from typing import Any


def parse_json(content: str | bytes) -> Any:
    """The value; nesting that is too deep is refused like any other damage.

    Raises:
        ValueError: when it is not JSON.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
