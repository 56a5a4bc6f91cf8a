"""Whether a file is still the one that was read, without reading it again. No torch.

A second write within the same tick of the clock would change no time. So a file that changed in the
last :data:`SETTLED` seconds must not be remembered at all.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

SETTLED = 3.0
"""Seconds: more than the coarsest clock of a file system (2 s) with a server's skew."""


class Stamp(NamedTuple):
    """Values that change with a file's content; times in nanoseconds.

    Programs cannot set ``changed``, so it reveals a copy with another file's times.
    """

    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Stamp:
        return cls(stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)

    @property
    def settled(self) -> bool:
        return time.time() - max(self.modified, self.changed) / 1e9 > SETTLED


def stamps(files: Iterable[Path]) -> str | None:
    """Sixteen hex digits of the SHA-256 of files' stamps, in their order.

    None where one of them has only just changed.

    Raises:
        OSError: when a file is gone.
    """
    digest = hashlib.sha256()
    for file in files:
        stamp = Stamp.of(file.stat())
        if not stamp.settled:
            return None
        digest.update(f"{file.name} {' '.join(map(str, stamp))}\n".encode())
    return digest.hexdigest()[:16]
