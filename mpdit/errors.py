"""The end of a command: its exit status, and one message that names the error and a remedy."""

from __future__ import annotations

import difflib
import errno
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

from mpdit.text import printable_output

if TYPE_CHECKING:  # a help page need not wait for it
    from pydantic import ValidationError

P = ParamSpec("P")

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_BUSY = 75  # sysexits' EX_TEMPFAIL: another process holds the run
EXIT_UNREAD = 141  # a shell's status for SIGPIPE: the reader of the output has ended
EXIT_SIGINT = 130  # a shell's status for Ctrl-C
EXIT_INTERRUPTED = 85  # stopped by a signal with its state kept; the same command resumes


class ConfigError(ValueError):
    """An error that the user can correct. ``key`` is dotted; '' where no single key is wrong."""

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(f"{key}: {message}" if key else message)
        self.message = message
        self.key = key


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean …?`` with the closest of ``known`` in any case, or ''."""
    close = closest(word, known)
    return "" if close is None else f" Did you mean {close!r}?"


def closest(word: str, known: Iterable[str]) -> str | None:
    """The closest of ``known`` in any case; None where none is similar."""
    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    return names[close[0]] if close else None


def explain(error: ValidationError, known_keys: Iterable[str]) -> ConfigError:
    """Return the first error: its dotted key, and the nearest of ``known_keys``."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"] if part != "function-after")
    match first["type"]:
        case "extra_forbidden":
            return ConfigError(f"unknown key.{nearest(key, known_keys)}", key)
        case "missing":
            return ConfigError("required, but not set", key)
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
            rule = first["msg"].rpartition(" should ")[2].partition(" after validation")[0]
            rule = rule.replace("valid tuple", "list").replace("valid dictionary", "mapping")
            return ConfigError(f"should {rule}, not {first['input']!r}", key)


def command(main: Callable[P, int]) -> Callable[P, int]:
    """Make ``main`` a command: its output is printable text, its errors are one message each.

    Returns:
        the function; where it raises ConfigError or OSError, its exit status is that of `say`.
    """

    @wraps(main)
    def door(*args: P.args, **options: P.kwargs) -> int:
        with printable_output(sys.stdout, sys.stderr):
            try:
                status = main(*args, **options)
                sys.stdout.flush()  # so a full disk fails here, not at the interpreter's end
            except BrokenPipeError:  # such as `plan | head`
                return EXIT_UNREAD
            except (ConfigError, OSError) as error:
                return say(error)
            finally:
                _drop_unwritten()
        return status

    return door


def _drop_unwritten() -> None:
    """Discard output that stdout does not take; else the interpreter fails at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(error: ConfigError | OSError) -> int:
    """Print a command's error as one message, and return its exit status."""
    print(f"error: {reason_of(error)}", file=sys.stderr)
    return EXIT_FAILED if isinstance(error, OSError) else EXIT_USAGE


def why_unloadable(error: Exception) -> str:
    """Return in one line why torch.load failed.

    torch's advice on how to load pickled code unsafely is left out.
    """
    if isinstance(error, pickle.UnpicklingError):
        return "it holds more than tensors, and pickled code is not loaded"
    return f"{type(error).__name__}: {error}".splitlines()[0]


def reason_of(error: Exception) -> str:
    """Return the message of an error that a user can correct."""
    return explain_os_error(error) if isinstance(error, OSError) else str(error)


def explain_os_error(error: OSError) -> str:
    """Return one message; for a full disk with the free space and the remedy."""
    if not error.filename:
        return str(error)
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{error.filename}: {error.strerror}"
    free = shutil.disk_usage(Path(error.filename).parent).free / 1e6
    return (
        f"cannot write {error.filename} ({error.strerror}, {free:,.1f} MB free). What was saved "
        "before is kept. Free some space and run the same command again."
    )
