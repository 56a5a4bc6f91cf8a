"""The commands that prepare data and models, and the commands about the program itself."""

from __future__ import annotations

from pathlib import Path

from mpdit.commandline.parser import Options, at_least
from mpdit.commandline.row import DATA, TOOL, Command

VAE = "stabilityai/sd-vae-ft-mse"

CHECK = """\
Prints every problem, and the folder's classes, modes and sizes. The exit status is 2 when there is
a problem."""
ENCODE = """\
Each image is encoded as it is and mirrored, into a latent store that a run reads
(data: {name: latents, path: STORE, ...}).

SOURCE is one of
  a folder of images      a sub-folder per class, in alphabetical order, or a flat one (one class)
  hf:NAME[:SPLIT]         a Hugging Face data set (split: train by default)
  a folder with the official code's posterior_means.pt, posterior_stds.pt, labels.pt, stats.pt,
                          which are used unchanged

Stopped at any moment, the same command resumes. On several GPUs:
  torchrun --nproc-per-node 8 -m mpdit.data encode SOURCE STORE
"""
REFERENCE = """\
The file has ADM's layout: arr_0 (uint8 N, H, W, C), arr_1 (labels) and, with --extractor, mu and
sigma. A run on latents is compared with STORE/reference.npz.

--data is one of
  a data set's name       digits or fashion-mnist: their train split
  a folder of images      its train split, in colour, cropped to --size; with --store, all images,
                          cropped as they were encoded
  hf:NAME[:SPLIT]         a Hugging Face data set (split: train by default)
"""


def _check(options: Options) -> None:
    options.add("folder", metavar="FOLDER", type=Path)
    text = "the side that a run scales images to: also report images too thin for it"
    options.add("--size", type=at_least(1), metavar="PIXELS", help=text)


def _encode(options: Options) -> None:
    options.add("source", metavar="SOURCE")
    options.add("store", metavar="STORE", type=Path, help="the folder to make")
    text = "a diffusers AutoencoderKL, by name or folder (default: %(default)s)"
    options.add("--vae", default=VAE, metavar="NAME", help=text)
    text = "side of the square that images are cropped to, as ADM does it (default: %(default)s)"
    options.add("--size", type=at_least(1), default=128, metavar="PIXELS", help=text)
    text = "images at once (default: %(default)s)"
    options.add("--batch-size", type=at_least(1), default=64, metavar="N", help=text)


def _verify(options: Options) -> None:
    options.add("store", metavar="STORE", type=Path)


def _reference(options: Options) -> None:
    add = options.add
    add("out", metavar="OUT.npz", type=Path, help="the file to make")
    add("--data", required=True, metavar="NAME|FOLDER", help="where the images come from")
    add("--store", type=Path, metavar="STORE", help="the latent store that was encoded from them")
    add("--size", type=int, metavar="PIXELS", help="side of the square that images are cropped to")
    add("--extractor", metavar="NAME", help="add the mean and covariance of its features")


def _convert(options: Options) -> None:
    options.add("old", type=Path, metavar="OLD", help="the official run's folder")
    options.add("new", type=Path, metavar="NEW", help="the folder to make")


def _catalogue(options: Options) -> None:
    text = "files that register names of your own"
    options.add("files", nargs="*", type=Path, metavar="EXTENSION", help=text)


def _completion(options: Options) -> None:
    options.add("shell", choices=SHELLS, help="bash, zsh or fish")


SHELLS = ("bash", "zsh", "fish")
COMPLETION = """\
For this session:
  bash, zsh:  eval "$(mpdit completion bash)"     (zsh: after compinit, with zsh in place of bash)
  fish:       mpdit completion fish | source
For all sessions, put the line into ~/.bashrc, ~/.zshrc or ~/.config/fish/config.fish."""

ROWS = (
    Command(
        "data check",
        DATA,
        "FOLDER",
        "read every image of a folder and list what is wrong",
        "mpdit.data.__main__:check",
        _check,
        CHECK,
    ),
    Command(
        "data encode",
        DATA,
        "SOURCE STORE",
        "make a latent store from images or official latents",
        "mpdit.data.__main__:encode",
        _encode,
        ENCODE,
    ),
    Command(
        "data verify",
        DATA,
        "STORE",
        "compare every file of a latent store with its checksum",
        "mpdit.data.__main__:verify_store",
        _verify,
    ),
    Command(
        "data reference",
        DATA,
        "OUT.npz",
        "make a file of real images to compare samples with",
        "mpdit.data.__main__:reference",
        _reference,
        REFERENCE,
    ),
    Command(
        "convert",
        DATA,
        "OLD NEW",
        "convert a run of the official code into a run of mpdit",
        "mpdit.official.conversion:convert_run",
        _convert,
    ),
    Command(
        "catalogue",
        TOOL,
        "",
        "print every name that a grid can use, as Markdown",
        "mpdit.catalogue.__main__:print_page",
        _catalogue,
    ),
    Command(
        "completion",
        TOOL,
        "SHELL",
        "print the code that makes a shell complete commands, studies and runs",
        "mpdit.commandline.completion:print_script",
        _completion,
        COMPLETION,
    ),
)
