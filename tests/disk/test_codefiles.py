"""The files that a run executes, and where they come from."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from mpdit.disk import codefiles
from mpdit.disk.codefiles import code_files, digest, executed, origin
from tests.helpers import ROOT
from tests.helpers.launching import commit, git


def write(folder: Path, **files: str) -> Path:
    """Files by their path, with ``__`` for the separator."""
    for name, text in files.items():
        file = folder / f"{name.replace('__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small checkout in git: a package with one model."""
    folder = write(tmp_path / "code", launch="", mpdit__model="x = 1")
    (folder / "mpdit" / "__init__.py").write_text("")
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


def test_every_file_of_the_package_in_git_is_among_them() -> None:
    listed = git(ROOT, "ls-files", "--", "mpdit", "launch.py").splitlines()
    assert set(listed) <= set(code_files())


def test_modules_that_the_package_or_an_extension_imports_are_among_them(checkout: Path) -> None:
    write(
        checkout,
        mpdit__model="import kernels.fast",
        kernels__fast="from . import slow\nfrom kernels.sizes import size",
        kernels__slow="",
        kernels__sizes="",
        kernels__other="",
        later="",
        never="",
    )
    files = code_files([b"def f():\n    from later import x\n    import numpy\n"], checkout)
    names = {"fast", "slow", "sizes"}
    assert {name for name in files if "mpdit" not in name} == {
        "launch.py",
        "later.py",
        *(f"kernels/{name}.py" for name in names),
    }


def test_data_beside_the_code_is_never_read(checkout: Path) -> None:
    for place in ("images.npz", "mpdit/images.npz", "data/images.npz", "mpdit/.#model.py"):
        (checkout / place).parent.mkdir(exist_ok=True)
        (checkout / place).symlink_to("/nowhere")  # which cannot be read
    assert set(code_files((), checkout)) == {"launch.py", "mpdit/__init__.py", "mpdit/model.py"}


def test_an_installed_package_is_itself_without_its_neighbours(tmp_path: Path) -> None:
    folder = write(tmp_path, mpdit__model="import helper", helper="")
    files = code_files((), folder)
    assert set(files) == {"mpdit/model.py"}
    assert origin(files, folder)["commit"] is None


def test_the_hash_of_what_is_executed_ignores_the_launcher(checkout: Path) -> None:
    def both() -> tuple[str, str]:
        files = code_files((), checkout)
        return digest(files), digest(executed(files))

    whole, science = both()
    write(checkout, mpdit__study__screen="", launch="pass")
    assert (both()[0] != whole, both()[1]) == (True, science)
    write(checkout, mpdit__model="x = 2")
    assert both()[1] != science


def test_the_origin_is_whole(checkout: Path, tmp_path: Path) -> None:
    vendored = write(tmp_path / "vendored", kernel="")
    git(vendored, "init", "--quiet")
    made = commit(vendored)
    git(checkout, "-c", "protocol.file.allow=always", *("submodule", "add", str(vendored), "kern"))
    head = commit(checkout)
    write(checkout, mpdit__model="x = 2\nimport kern.kernel", mpdit__new="y = 3")
    (checkout / "notes.txt").write_text("not code")
    found = origin(code_files((), checkout), checkout)
    assert (found["commit"], found["checkout"]) == (head, str(checkout))
    assert "+x = 2" in found["diff"]
    assert found["untracked"] == {"mpdit/new.py": hashlib.sha256(b"y = 3").hexdigest()}
    assert found["submodules"] == {"kern": made}
    shutil.rmtree(checkout / "mpdit")
    git(checkout, "checkout", "--quiet", "HEAD", "--", "mpdit")
    (tmp_path / "d.diff").write_text(found["diff"])
    git(checkout, "apply", str(tmp_path / "d.diff"))
    assert (checkout / "mpdit" / "model.py").read_text() == "x = 2\nimport kern.kernel"


@pytest.mark.parametrize("lacks", ["git", "a repository", "a commit", "a repository of its own"])
def test_without_git_the_origin_is_the_folder(
    checkout: Path, lacks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lacks == "git":
        monkeypatch.setenv("PATH", "")
    else:
        shutil.rmtree(checkout / ".git")
    if lacks == "a commit":
        git(checkout, "init", "--quiet")
    if lacks == "a repository of its own":
        git(checkout.parent, "init", "--quiet")
    found = origin(code_files((), checkout), checkout)
    nothing = {"commit": None, "diff": "", "untracked": {}, "submodules": {}}
    assert found == {"checkout": str(checkout), **nothing}


def test_a_snapshots_origin_is_what_was_recorded(checkout: Path) -> None:
    (checkout / codefiles.ORIGIN).write_text('{"commit": "abc"}')
    assert origin(code_files((), checkout), checkout) == {"commit": "abc"}
