"""A plan as lines of text: its runs, the excluded and merged runs, and the cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from mpdit.catalogue import EXTRACTORS, FLAGS, PAPERS_FLAGS
from mpdit.catalogue.flags import code_of
from mpdit.config import DEFAULTS, known_keys
from mpdit.errors import ConfigError
from mpdit.grid.exclusions import yaml_text
from mpdit.grid.plan import Plan, PlannedRun
from mpdit.grid.resources import Resources
from mpdit.grid.settings import SIZE_KEYS, shortest
from mpdit.grid.site import unused_variables
from mpdit.modelconfig import PRESETS
from mpdit.study.cost import Bill
from mpdit.text import Paint, align, count, expanded, shortlist

LISTED = 5
ALIASES = 3


def plan_lines(plan: Plan, bill: Bill, paint: Paint) -> Iterator[str]:
    """One line a run with the columns that differ, then excluded and merged runs, and the cost."""
    runs = plan.runs
    total = sum(run.config.train.steps for run in runs)
    yield paint(plan.study, "bold") + (plan.grid.description and f"  {plan.grid.description}")
    variants = len({run.variant for run in runs})
    tuned = len({tuple(map(str, run.tune.values())) for run in runs})
    factors = [count(variants, "variant")]
    factors += [count(tuned, "tuned setting")] if tuned > 1 else []
    factors += [count(len({run.seed for run in runs}), "seed")]
    until, in_all = (" up to this stage", "") if plan.grid.is_staged else ("", " in all")
    summary = f"{count(len(runs), 'run')}{until}: {', '.join(factors)}"
    yield f"{summary}; {total:,} training steps{in_all}"
    yield ""
    columns = _columns(plan)
    numbers = [("parameters", [f"{run.parameters:,}" for run in runs])]
    sizes = _relative_sizes(runs)
    numbers += [("vs first", sizes)] if any(sizes) else []
    everything = [("run", [run.name for run in runs]), *columns, *numbers]
    header = [title for title, _ in everything]
    rows = list(zip(*(cells for _, cells in everything), strict=True))
    head, *body = align([header, *rows], [cells in numbers for cells in everything])
    yield paint("  ".join(head), "dim")
    for cells in body:
        yield "  ".join(cells)
    if any(title == "flags" for title, _ in columns):
        on = dict.fromkeys(flag for run in runs for flag in run.config.model.flags)
        legend = ", ".join(f"{code_of(flag)} {flag}" for flag in on)
        yield paint(f"flags: {legend}", "dim")
    yield from _left_out(plan, paint)
    yield from fraction_lines(plan, paint)
    resources = list(resource_lines([run.resources for run in runs]))
    if resources:
        yield ""
        yield paint("on Slurm", "bold")
        yield from (f"  {line}" for line in resources)
    if plan.defaults < DEFAULTS:
        yield ""
        yield paint("this study keeps the older defaults it began with: docs/training.md", "yellow")
    paths = dict.fromkeys(run.config.data.path for run in runs)
    for place in [expanded(path).absolute() for path in paths if path]:
        if not place.exists():
            yield ""
            yield paint(f"there is no {place} here (data.path)", "yellow")
    for line in _absent_weights(runs):
        yield ""
        yield paint(line, "yellow")
    yield ""
    yield from bill.lines()


def _absent_weights(runs: Sequence[PlannedRun]) -> Iterator[str]:
    """Where an extractor's weights are not here: what `submit` would say of them."""
    for evaluate in dict.fromkeys(run.config.evaluate for run in runs):
        if EXTRACTORS.find(evaluate.extractor).weights is not None:
            from mpdit.data.preflight import weights_file  # it imports numpy

            try:
                weights_file(evaluate)
            except ConfigError as error:
                yield str(error)


def _relative_sizes(runs: Sequence[PlannedRun]) -> list[str]:
    """The change in parameters from the first run of the same model name; '' for none."""
    first: dict[str, int] = {}
    sizes = []
    for run in runs:
        base = first.setdefault(run.config.model.name, run.parameters)
        change = f"{100 * (run.parameters / base - 1):+.2f} %".replace("-", "−")
        sizes.append("" if run.parameters == base else change)
    return sizes


def _columns(plan: Plan) -> list[tuple[str, list[str]]]:
    """(title, cells) of every setting of the grid that differs between its runs."""
    grid = plan.grid
    layers = [grid.base, grid.overrides, *(point.layer for point in grid.named)]
    layers += [choice for axis in (*grid.axes, *grid.tune) for choice in axis.choices]
    named = {key for layer in layers for key in layer}
    presets = [layer["model.preset"].value for layer in layers if "model.preset" in layer]
    named |= {f"model.{name}" for preset in presets for name in PRESETS[preset]}
    named -= {*SIZE_KEYS, "model.name", "model.preset"}
    own = [key for key in known_keys() if key in named]
    own = [key for key in own if key.removeprefix("model.") not in FLAGS]
    columns = [
        ("model", [run.config.model.name for run in plan.runs]),
        ("flags", [_flags(run) for run in plan.runs]),
    ]
    for key in own:
        section, _, name = key.partition(".")
        values = [getattr(getattr(run.config, section), name) for run in plan.runs]
        title = name if section in ("model", "train") else shortest(key)
        title = "data" if key == "data.name" else title
        columns.append((title, [yaml_text(value) for value in values]))
    return [(title, cells) for title, cells in columns if len(set(cells)) > 1]


def _flags(run: PlannedRun) -> str:
    on, all_of_them = run.config.model.flags, PAPERS_FLAGS
    if on[: len(all_of_them)] == all_of_them:
        return " ".join(("all", *map(code_of, on[len(all_of_them) :])))
    return " ".join(map(code_of, on)) or "none"


def resource_lines(runs: Sequence[Resources]) -> Iterator[str]:
    """One line for each value that was given: the key, the value, and where it comes from."""
    shared = Counter(map(id, runs))  # the runs of a variant share one object
    counts: Counter[tuple[str, str, str]] = Counter()
    for resources in {id(resources): resources for resources in runs}.values():
        counts.update(dict.fromkeys(resources.rows(), shared[id(resources)]))
    if not counts:
        return
    for row, cells in zip(counts, align(list(counts), [False] * 3), strict=True):
        number = counts[row]
        part = f"  ({number:,} of {count(len(runs), 'run')})" if number < len(runs) else ""
        yield f"{'  '.join(cells).rstrip()}{part}"
    shared_by = max((run.runs_per_job / run.gpus for run in runs if run.gpus), default=0)
    if shared_by > 1:
        yield (
            f"{shared_by:.2g} runs share a GPU: without CUDA's MPS they take turns on it, and its "
            "compute mode has to be default (docs/slurm.md)"
        )
    if unused := unused_variables():
        yield f"not used, as submission sets these options itself: {', '.join(unused)}"


def _left_out(plan: Plan, paint: Paint) -> Iterator[str]:
    if plan.excluded:
        yield ""
        yield paint("left out", "bold")
    for excluded in plan.excluded:
        if excluded.runs:
            reason = excluded.exclusion.reason and f": {excluded.exclusion.reason}"
            yield f"  {count(excluded.runs, 'run')} with {excluded.exclusion.text}{reason}"
            yield paint(f"    {shortlist(excluded.labels, LISTED)}", "dim")
    yield from unmatched(plan, paint)
    if plan.merged:
        yield ""
        yield paint("kept once", "bold")
    for merged in plan.merged:
        yield f"  {merged.label} is the same as {merged.kept} ({count(merged.runs, 'run')})"


def fraction_lines(plan: Plan, paint: Paint) -> Iterator[str]:
    """The effects that a fraction of a grid can estimate, how well, and which are confounded."""
    if plan.fraction is None:
        return
    found, factors = plan.fraction.found, plan.fraction.factors

    def name(term: tuple[int, ...]) -> str:
        return " × ".join(factors[index] for index in term)

    yield ""
    yield paint("fraction", "bold")
    effects = {"main": "main effects", "two-way": "main effects and interactions of two factors"}
    yield f"  {len(found.rows):,} of {count(found.cells, 'variant')}, for {effects[found.effects]}"
    for order, what in ((1, "main effects"), (2, "interactions")):
        ratios = [ratio for term, ratio in found.ratios.items() if len(term) == order]
        if ratios:
            span = f"{min(ratios):.2f} to {max(ratios):.2f}"
            yield f"  standard errors of {what}: {span} times those of the whole grid"
    if found.effects == "two-way":
        yield "  effects of three factors or more are assumed to be zero"
    else:
        yield "  interactions are assumed to be zero. Each main effect includes (share):"
    for term, aliases in found.aliases.items():
        parts = [f"{name(other)} ({share:.2f})" for other, share in aliases]
        yield paint(f"    {name(term)}: {shortlist(parts, ALIASES) or 'nothing'}", "dim")
    if found.missing and found.effects == "two-way":
        listed = shortlist(list(map(name, found.missing)), LISTED)
        yield f"  not estimable in the whole grid either: {listed}"


def unmatched(plan: Plan, paint: Paint) -> Iterator[str]:
    """The exclusions that leave out no run."""
    for excluded in plan.excluded:
        if not excluded.runs:
            yield paint(f"  exclude: {excluded.exclusion.text} matches no run", "yellow")


def grid_changes(
    new: Sequence[str], dropped: Sequence[str], active: Collection[str], paint: Paint
) -> Iterator[str]:
    """The runs that the grid has gained and lost since it was last submitted.

    Args:
        active: lost runs that `dropped.active_lines` reports.
    """
    if new:
        yield f"  new in the grid: {_listed(new)}"
    if kept := [name for name in dropped if name not in active]:
        yield paint(f"  no longer in the grid, kept on disk: {_listed(kept)}", "yellow")


def _listed(names: Sequence[str]) -> str:
    return f"{count(len(names), 'run')} ({shortlist(names, LISTED)})"
