"""How Sphinx makes the pages: `make docs` writes build/docs, whose start is build/docs/index.html.

The source folder is the repository's root, so that the same relative links lead somewhere on the
repository's host and in the built pages. Equations become MathML, which browsers draw by
themselves: no page loads anything from elsewhere.
"""

import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx import addnodes
from sphinx.application import Sphinx

project = html_title = "mpdit"
root_doc = "docs/index"
include_patterns = ["docs/*.md", "README.md", "CONTRIBUTING.md", "*/README.md"]
exclude_patterns = [".*", "build", "tests", "results/*/**"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

CONTENTS = {
    "Begin": ("docs/tutorial", "docs/concepts", "docs/architecture", "docs/glossary"),
    "Studies": ("experiments/README", "docs/catalogue", "docs/adding", "docs/slurm"),
    "Runs": ("docs/data", "docs/training", "docs/sampling", "docs/evaluation", "docs/official"),
    "Answers": ("docs/analysis", "docs/results", "docs/trust", "docs/benchmarks"),
    "Reference": (
        *("docs/command", "docs/troubleshooting", "docs/python", "docs/api", "docs/tools"),
        *("results/README", "CONTRIBUTING", "README"),
    ),
}
"""Caption → pages. A page that is listed nowhere stands under "More"."""

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
default_role = "py:obj"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_numpy_docstring = False

html_theme = "furo"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the docstrings are this checkout's
HOME = """<!doctype html><meta charset="utf-8"><title>mpdit</title>
<meta http-equiv="refresh" content="0; url=docs/index.html"><a href="docs/index.html">mpdit</a>
"""
API = re.compile(r"<!-- (auto\w+): ([\w.]+) -->")
"""``<!-- autofunction: analysis.load -->``: its docstring follows here, in the built page."""


def _inline_math(writer: Any, node: nodes.math) -> None:
    writer.body.append(str(latex2mathml.tex2mathml(node.astext())))
    raise nodes.SkipNode


def _block_math(writer: Any, node: nodes.math_block) -> None:
    mathml = latex2mathml.tex2mathml(node.astext(), as_block=True)
    writer.body.append(f'<div class="math">{mathml}</div>\n')
    raise nodes.SkipNode


def _read(app: Sphinx, page: str, text: list[str]) -> None:
    """Add what is only of the built pages: the contents, and the docstrings."""
    if page == root_doc:
        listed = {name for names in CONTENTS.values() for name in names}
        more = tuple(sorted(app.env.found_docs - listed - {root_doc}))
        for caption, names in {**CONTENTS, "More": more}.items():
            lines = "\n".join(f"/{name}" for name in names)
            if names:
                text[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{lines}\n```\n"
    text[0] = API.sub(r"```{eval-rst}\n.. \1:: \2\n```", text[0])


def _unlink_folders(app: Sphinx, tree: nodes.document) -> None:
    """Keep only the words of a link to a folder, which a page cannot show."""
    for link in list(tree.findall(addnodes.pending_xref)):
        path = (ROOT / app.env.docname).parent / link.get("reftarget", "")
        if link.get("reftype") == "myst" and link["reftarget"] and path.is_dir():
            link.replace_self(link.children)


def _write_home(app: Sphinx, error: Exception | None) -> None:
    """Send who opens the folder to the first page."""
    if error is None:
        (Path(app.outdir) / "index.html").write_text(HOME)


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (_inline_math, None), (_block_math, None))
    app.config.html_math_renderer = "mathml"
    app.connect("source-read", _read)
    app.connect("doctree-read", _unlink_folders)
    app.connect("build-finished", _write_home)
