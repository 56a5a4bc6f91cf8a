"""The live page: one file that needs no network, either static or updated by `server`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from analysis.figures import style
from analysis.live.livestudy import LiveStudy
from mpdit.disk import links
from mpdit.disk.files import make_folder, write_atomic
from mpdit.errors import ConfigError

FILE = "live.html"


def html(study: LiveStudy, *, every: float | None = None, samples: str = "") -> str:
    """Return the page's HTML.

    Args:
        every: seconds after which the browser reloads the page; None: no reload.
        samples: the relative path of the study's folder, for the addresses of sample images; ''
            if a server serves the page.
    """
    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, folder.parent / "report"]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    document = study.document()
    settings = {
        "served": not samples,
        "samples": samples,
        "palette": style.PALETTE,
        "page": style.SHOWN,
    }
    return environment.get_template(FILE).render(
        study=study.name,
        every=every,
        settings=_script(settings),
        document=_script(document),
    )


def _script(found: dict[str, Any]) -> Markup:
    """Return JSON that is safe inside a script element."""
    text = json.dumps(found, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def renew(
    path: Path, every: float, out: Path | None = None, rest: Callable[[float], object] = time.sleep
) -> Path:
    """Rewrite the page until every run is done. The last page does not reload itself.

    Args:
        every: seconds between two pages.
        out: the page's folder; by default the study's ``report/``.

    Raises:
        ConfigError: when ``path`` is not a study, or the page cannot be written.
    """
    study = LiveStudy(path)
    folder = path / "report" if out is None else out
    links.guard(folder)
    file, samples = folder / FILE, quote(os.path.relpath(path, folder))
    while True:
        page = html(study, every=None if study.is_over else every, samples=f"{samples}/")
        try:
            make_folder(folder)
            write_atomic(file, page)
        except OSError as error:
            raise ConfigError(f"cannot write the page to {file}: {error.strerror}") from None
        if study.is_over:
            return file
        rest(every)
        study.look()
