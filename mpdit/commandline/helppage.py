"""The help page: all commands, grouped by purpose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mpdit.commandline.row import GROUPS, Command

ABOUT = """\
Ablate Diffusion Transformers: plan a grid of runs, train, sample and evaluate them on this machine
or on Slurm, and read which variant is better, with intervals over seeds."""


def page(program: str, commands: Mapping[str, Command]) -> str:
    """The help page of these commands, given by name, for a ``program`` of this name."""
    return "\n".join(_lines(program, commands))


def _lines(program: str, commands: Mapping[str, Command]) -> Iterator[str]:
    calls = {name: f"{name} {row.operands}".rstrip() for name, row in commands.items()}
    width = max(map(len, calls.values()))
    yield f"usage: {program} COMMAND ..."
    yield f"\n{ABOUT}"
    for group in GROUPS:
        if names := [name for name, row in commands.items() if row.group == group]:
            yield f"\n{group}"
            yield from (f"  {calls[name]:<{width}}  {commands[name].does}" for name in names)
    yield f"\n'{program} COMMAND --help' lists the options of a command."
