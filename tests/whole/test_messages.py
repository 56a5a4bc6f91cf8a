"""docs/troubleshooting.md has a row for every message that a user can meet."""

import ast
import re
from collections.abc import Iterator, Sequence
from functools import cache

from tests.helpers import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
CODE = [
    *sorted((ROOT / "mpdit").rglob("*.py")),
    *sorted((ROOT / "analysis").rglob("*.py")),
    ROOT / "launch.py",
]
RAISED = re.compile(r"(Error|^error|NothingToShow|^_damaged|^_fail|^warn(ing|_once)?)$")
FOR_PROGRAMMERS = re.compile(r"^(Type|Attribute|Index|NotImplemented)Error$")
FORMAT = re.compile(r"%[-.,\d]*[sdrgf]")
FROM_ELSEWHERE = (
    *("How to read", "The state of", "The error of a failed"),
    *("What sbatch itself", "Why Slurm lets"),
)
"""Sections about what no call here raises: states, exit statuses, and Slurm's own words."""
BARE_KEY = re.compile(r"[a-z_]+(\.[a-z_]+)*")  # the key that a message is about, beside it


def _template(node: ast.expr) -> str:
    """A literal text with `…` for all that is filled in; '' for what is not literal at all."""
    match node:
        case ast.Constant(value=str(text)):
            return FORMAT.sub("…", text)
        case ast.JoinedStr(values=parts):
            return "".join(_template(part) or "…" for part in parts)
        case ast.BinOp(left=left, op=ast.Add() | ast.Mod(), right=right):
            if not (head := _template(left)):
                return ""
            return head + ((_template(right) or "…") if isinstance(node.op, ast.Add) else "")
        case _:
            return ""


def _said(tree: ast.Module) -> Iterator[tuple[int, Sequence[ast.expr]]]:
    """(line, what may be a message) of each error, warning, and line printed beside the output."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and "explain" in node.name:
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return) and inner.value is not None:
                    yield inner.lineno, [inner.value]
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            printed = name == "print" and any(word.arg == "file" for word in node.keywords)
            if (printed or RAISED.search(name)) and not FOR_PROGRAMMERS.match(name):
                yield node.lineno, node.args


def _messages() -> Iterator[tuple[str, str]]:
    """(place, message) of every call that makes or prints an error or a warning."""
    for file in CODE:
        for line, arguments in _said(ast.parse(file.read_text())):
            texts = [text for argument in arguments if (text := _template(argument))]
            texts = [text for text in texts if not BARE_KEY.fullmatch(text)]
            message = re.sub("…+", "…", " ".join(" ".join(texts[:1]).split()))
            message = message.removeprefix("error: ")
            if len(re.findall(r"[A-Za-z]", message)) >= 4:
                yield f"{file.relative_to(ROOT)}:{line}", message


@cache
def _kinds() -> dict[str, re.Pattern[str]]:
    """The messages in the first columns of the page's tables → what they match."""
    sections = re.split(r"^#+ ", PAGE.read_text(), flags=re.MULTILINE)
    own = [part for part in sections if not part.startswith(FROM_ELSEWHERE)]
    cells = re.findall(r"^\| (`.*?) \| ", "\n".join(own), re.MULTILINE)
    kinds = [kind for cell in cells for kind in re.findall(r"`([^`]+)`", cell)]
    return {kind: re.compile(re.escape(kind).replace("…", ".*")) for kind in kinds}


def test_every_message_has_a_row() -> None:
    lost = [
        f"{place}: {message}"
        for place, message in _messages()
        if not any(pattern.fullmatch(message) for pattern in _kinds().values())
    ]
    assert not lost, "add these to docs/troubleshooting.md:\n" + "\n".join(lost)


def test_every_row_is_of_a_message() -> None:
    known = {message for _, message in _messages()}
    stale = [kind for kind, pattern in _kinds().items() if not any(map(pattern.fullmatch, known))]
    assert not stale, "no code has these messages of docs/troubleshooting.md any more"


def test_no_row_matches_everything() -> None:
    assert [kind for kind in _kinds() if not re.search("[A-Za-z]{2}", kind)] == []
