"""The commands on one run: execute, sample, evaluate and export it."""

from __future__ import annotations

from argparse import SUPPRESS, BooleanOptionalAction
from pathlib import Path
from typing import Any

from mpdit.commandline.completers import runs
from mpdit.commandline.parser import Options
from mpdit.commandline.row import ONE_RUN, Command


def _folder(options: Options) -> None:
    options.add("run", metavar="RUN", complete=runs, help="a run's folder, name or id")
    options.results()


SAMPLE = """\
Writes an .npz in ADM's format (arr_0 uint8 images, arr_1 labels) and a PNG grid of its first
images, drawn with the run's averaged weights. Options that are not given have the run's values.
The run's own files are not changed. Sample i has the same noise for any batch size and number of
processes; its image may differ by rounding.

Stopped at any moment, the same command resumes. On several GPUs:
  torchrun --nproc-per-node 8 -m mpdit.sample RUN
"""


def _sample(options: Options) -> None:
    from mpdit.catalogue import SOLVERS  # here: other commands need not wait for the tables

    _folder(options)

    def own(name: str, help: str, **more: Any) -> None:
        options.add(name, help=help, default=SUPPRESS, **more)

    add = options.add
    add("--classes", metavar="3,7,10-19", help="classes to sample (all)")
    own("--count", "samples", type=int, metavar="N")
    own("--guidance", "scale; 1 is unguided", type=float, metavar="W")
    own("--guidance-interval", "noise levels with guidance", type=float, nargs=2, metavar="S")
    own("--ema-std", "relative width of the averaged weights", type=float, metavar="S")
    add("--step", type=int, metavar="N", help="training step of the EMA snapshot (the last)")
    own("--solver", ", ".join(SOLVERS), complete=lambda **_: list(SOLVERS))
    own("--labels", "data, even or uniform", complete=lambda **_: ["data", "even", "uniform"])
    own("--steps", "steps of the solver", type=int, metavar="N")
    add("--seed", type=int, help="seed of the noise (the run's)")
    own("--precision", "float32, tf32 or bfloat16")
    own("--to-uint8", "round or truncate")
    own("--batch-size", "samples drawn at once", type=int, metavar="B")
    own("--compile", "compile the blocks first", action=BooleanOptionalAction)
    add("--out", type=Path, metavar="FILE.npz", help="(./RUN_WHAT-DIFFERS.npz)")


def _evaluate(options: Options) -> None:
    from mpdit.catalogue import METRICS

    _folder(options)
    several: dict[str, Any] = {"nargs": "+", "default": []}
    add = options.add
    add("--ema-std", type=float, metavar="S", help="relative widths (the run's)", **several)
    add("--guidance", type=float, metavar="W", help="scales; 1 is unguided (the run's)", **several)
    add("--step", type=int, metavar="N", help="training steps with EMA snapshots", **several)
    text = f"any of {', '.join(METRICS)} (the run's)"
    add("--metrics", metavar="NAME", help=text, complete=lambda **_: list(METRICS), **several)
    add("--count", type=int, metavar="N", help="samples of each set (the run's)")


def _ema(options: Options) -> None:
    _folder(options)
    text = "relative widths, 0 < std < 0.28"
    options.add("--std", type=float, nargs="+", required=True, metavar="S", help=text)
    options.add("--step", type=int, metavar="N", help="step of a stored snapshot (the newest)")


def _export(options: Options) -> None:
    _folder(options)
    add = options.add
    add("folder", type=Path, metavar="DIR", help="the folder to make")
    add("--ema-std", type=float, metavar="S", help="relative width of the averaged weights")
    add("--step", type=int, metavar="N", help="training step of the EMA snapshot (the last)")
    text = "license of the weights, as the hub spells it, such as apache-2.0"
    add("--license", metavar="ID", help=text)
    add("--data-license", metavar="TEXT", help="license of the training data")


EXPORT = """\
DIR gets model.safetensors, config.json and a model card README.md with the study's verdicts. It is
loaded with mpdit.load(DIR), or from the Hugging Face hub with mpdit.hub.HubModel.from_pretrained.
An existing DIR is not overwritten."""

ROWS = (
    Command(
        "run",
        ONE_RUN,
        "RUN",
        "train, sample and evaluate one run, or resume it after any stop",
        "mpdit.run:run_folder",
        _folder,
        "On several GPUs:\n  torchrun --nproc-per-node 8 -m mpdit.run RUN",
        stoppable=True,
    ),
    Command(
        "sample",
        ONE_RUN,
        "RUN",
        "draw samples of chosen classes, guidance and solver",
        "mpdit.sample:sample",
        _sample,
        SAMPLE,
        stoppable=True,
    ),
    Command(
        "evaluate",
        ONE_RUN,
        "RUN",
        "measure a finished run by other metrics, EMA widths, guidance or steps",
        "mpdit.evaluate:evaluate",
        _evaluate,
        "Each EMA width is measured with each guidance scale after each training step.",
        stoppable=True,
    ),
    Command(
        "ema",
        ONE_RUN,
        "RUN",
        "make EMA snapshots of other relative widths from the stored ones",
        "mpdit.ema.posthoc:make_snapshots",
        _ema,
    ),
    Command(
        "export",
        ONE_RUN,
        "RUN DIR",
        "write a trained model for others: weights, config, model card",
        "mpdit.export:export",
        _export,
        EXPORT,
    ),
)
