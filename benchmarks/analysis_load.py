"""How fast a large study is loaded and reported: ``python benchmarks/analysis_load.py``.

Makes 1,000 finished runs, each with 500 rows of metrics and 50 probes of 12 blocks, and loads them
twice, each time in its own process: first from the files, then from the cache. Then writes their
report, and that of 10,000 runs of 24 rows and 10 probes of 4 blocks, both from the files. Also
updates a live page twice. Prints seconds (of CPU for reports and the live page, with the memory)
beside the promised ones, and ends with status 1 when a promise is not kept.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from launcher import report

from mpdit.config import make_run
from mpdit.disk.rundir import RunDir, RunState
from mpdit.disk.stamp import SETTLED

SEEDS = 5
VARIANTS, ROWS, PROBES, BLOCKS = 200, 500, 50, 12
MANY = {"variants": 2000, "rows": 24, "probes": 10, "blocks": 4}
SITES = ("residual", "attention", "mlp", "modulated", "weight", "gradient", "update")
LOAD = """\
import sys, time
import analysis
began = time.perf_counter()
study = analysis.load(sys.argv[1])
seconds = time.perf_counter() - began
print(seconds, len(study.runs), len(study.metrics), len(study.magnitudes))
"""


REPORT = """\
import resource, sys, time
import analysis
from analysis.report import page
page.write(analysis.load(sys.argv[1]), sys.argv[2])
print(time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


LIVE = """\
import gzip, json, sys, time
from pathlib import Path
from analysis.live.livestudy import LiveStudy
began = time.process_time()
study = LiveStudy(Path(sys.argv[1]))
first, sent = time.process_time() - began, json.dumps(study.document()).encode()
began = time.process_time()
study.look()
print(first, time.process_time() - began, len(gzip.compress(sent)))
"""


def metrics(noise: random.Random, rows: int) -> str:
    names = ("loss", "mse", "vlb", "grad_norm", "learning_rate", "images_per_s", "memory_mb")
    return "".join(
        json.dumps({"step": 50 * i, **{name: noise.random() for name in names}, "seconds": 0.3 * i})
        + "\n"
        for i in range(1, rows + 1)
    )


def magnitudes(noise: random.Random, probes: int, blocks: int) -> str:
    sizes = {**dict.fromkeys(SITES, blocks), "conditioning": 1}
    return "".join(
        json.dumps({"step": 500 * i, "site": site, "blocks": [noise.random() for _ in range(size)]})
        + "\n"
        for i in range(probes)
        for site, size in sizes.items()
    )


def make_study(
    path: Path,
    variants: int = VARIANTS,
    rows: int = ROWS,
    probes: int = PROBES,
    blocks: int = BLOCKS,
) -> None:
    """Write a study's files as its runs would; the curves repeat after ten runs."""
    noise = random.Random(0)
    curves = [(metrics(noise, rows), magnitudes(noise, probes, blocks)) for _ in range(10)]
    start = {
        "time": "2026-01-01T00:00:00Z", "code": "0" * 40, "diff_sha": None, "python": "3.11.7",
        "packages": {"torch": "2.9.0"}, "host": "node", "device": "cpu", "threads": 1,
    }  # fmt: skip
    score = {"metric": "FD-digits@500", "extractor": "digits", "weights": "w", "count": 500}
    entries = []
    for i in range(variants * SEEDS):
        variant, seed = divmod(i, SEEDS)
        model = {"name": "DiT-S/2"}
        train = {"steps": 25_000, "learning_rate": 1e-4 * (variant + 1)}
        config = make_run({"model": model, "data": "digits", "train": train, "seed": seed})
        run = RunDir(path / f"v{variant}_s{seed}-{config.id}")
        run.write_config(config)
        for name, text in zip(("metrics", "magnitudes"), curves[i % 10], strict=True):
            (run.path / f"{name}.jsonl").write_text(text)
        row = {**score, "value": noise.random(), "reference": {"hash": "r"}, "role": "run"}
        (run.path / "evaluation.jsonl").write_text(json.dumps(row) + "\n")
        (run.path / "provenance.json").write_text(json.dumps({"starts": [start]}))
        (run.path / "model.json").write_text(json.dumps({"parameters": 1, "flops": 1}))
        run.write_state(RunState(stage="done", step=25_000, steps=25_000))
        entry = {"name": run.name, "id": config.id, "variant": f"v{variant}", "seed": seed}
        entries.append(entry)
    (path / "study.json").write_text(json.dumps({"study": path.name, "runs": entries}))


def load(path: Path, cache: Path) -> float:
    """The seconds of loading in a process that has finished its imports."""
    command = [sys.executable, "-c", LOAD, str(path)]
    environment = {**os.environ, "MPDIT_CACHE": str(cache)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    seconds, runs, rows, probed = done.stdout.split()
    expected = VARIANTS * SEEDS, ROWS, PROBES * (len(SITES) * BLOCKS + 1)
    assert (int(runs), int(rows), int(probed)) == (
        expected[0],
        expected[0] * expected[1],
        expected[0] * expected[2],
    )
    return float(seconds)


def report_seconds(path: Path, folder: Path) -> float:
    """The CPU seconds of a process that loads a study for the first time and writes its report;
    prints its memory."""
    command = [sys.executable, "-c", REPORT, str(path), str(folder / "report")]
    environment = {**os.environ, "MPDIT_CACHE": str(folder / f"cache-{path.name}")}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    seconds, memory = map(float, done.stdout.split())
    print(f"memory of the report of {path.name}: {memory:,.0f} MB")
    return seconds


def looks(path: Path, cache: Path) -> tuple[float, float]:
    """The CPU seconds of a live page's first look at a study, and of the next; prints the bytes
    that the browser gets."""
    command = [sys.executable, "-c", LIVE, str(path)]
    environment = {**os.environ, "MPDIT_CACHE": str(cache)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    first, again, size = map(float, done.stdout.split())
    print(f"live page of {path.name}: {size:,.0f} bytes at first")
    return first, again


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, cache = Path(folder) / "results" / "thousand", Path(folder) / "cache"
        make_study(path)
        time.sleep(SETTLED)  # files just written are not cached
        kept = [
            report("1,000 runs, from their files", load(path, cache), 6),
            report("1,000 runs, again", load(path, cache), 1),
            report("1,000 runs, their report (CPU)", report_seconds(path, Path(folder)), 12),
        ]
        first, again = looks(path, cache)
        kept.append(report("1,000 runs, a live page's first look (CPU)", first, 6))
        kept.append(report("1,000 runs, its next look (CPU)", again, 0.2))
        many = path.with_name("ten-thousand")
        make_study(many, **MANY)
        kept.append(
            report("10,000 runs, their report (CPU)", report_seconds(many, Path(folder)), 60)
        )
    sys.exit(0 if all(kept) else 1)


if __name__ == "__main__":
    main()
