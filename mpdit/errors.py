"""What a user can get wrong, in one message: what, where, the nearest right thing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic import ValidationError


class ConfigError(ValueError):
    """Something the user wrote cannot be a run. ``key`` is dotted, '' where no key is to blame."""

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(f"{key}: {message}" if key else message)
        self.message = message
        self.key = key


def nearest(word: str, known: Iterable[str]) -> str:
    """`` Did you mean …?`` with the closest of ``known``, or nothing when none is close."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def explain(error: ValidationError, known_keys: Iterable[str]) -> ConfigError:
    """The first thing that is wrong, with its dotted key and the nearest of ``known_keys``."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"] if part != "function-after")
    match first["type"]:
        case "extra_forbidden":
            return ConfigError(f"unknown key.{nearest(key, known_keys)}", key)
        case "missing":
            return ConfigError("is not set, and has no default", key)
        case "value_error":
            return ConfigError(str(first["ctx"]["error"]), key)
        case "model_type":
            return ConfigError(
                f"should be a mapping of keys to values, not {first['input']!r}", key
            )
        case "literal_error":
            given = repr(first["input"])
            expected = first["ctx"]["expected"].replace("'", "").split(" or ")
            words = [w.strip() for part in expected for w in part.split(",")]
            hint = nearest(str(first["input"]), words)
            return ConfigError(f"{given} is not one of {', '.join(words)}.{hint}", key)
        case _:
            message = first["msg"].removeprefix("Input should be ")
            return ConfigError(f"should be {message}, not {first['input']!r}", key)
