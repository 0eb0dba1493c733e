"""``--on``, ``--jobs`` and ``--part``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from lnsegfm.errors import ConfigError
from lnsegfm.jobs.engines import Engine, OnThisMachine, engine_of
from lnsegfm.jobs.parts import ListPart

On = Annotated[
    str,
    typer.Option(
        "--on",
        metavar="WHERE",
        help="Where jobs run: local, slurm[:PARTITION,time=MINUTES,mem=GB,cpus=N,gpus=N,...] or ray[:ADDRESS,...].",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", metavar="N", help="Jobs at a time; cores and GPUs of this machine are shared out. 1 here."),
]
OnlyPart = Annotated[
    str | None,
    typer.Option(
        "--part", metavar="I/N", help="Do the I-th of N parts alone, for a scheduler of your own; all share one --out."
    ),
]
_OTHERWISE = 8
"""Parts on a cluster where ``--jobs`` does not say it."""


@dataclass(frozen=True)
class Sharing:
    """How a command is shared out.

    Args:
        engine: Where its parts run.
        part: The only part that this process does; None where it does all, or has them done.
    """

    engine: Engine
    part: ListPart | None

    @classmethod
    def of(cls, on: str, jobs: int | None, part: str | None) -> Sharing:
        """Read the options.

        Raises:
            ConfigError: Values that cannot be, or ``--part`` beside the others.
        """
        engine = engine_of(on, jobs)
        if part is not None and (on != "local" or jobs is not None):
            raise ConfigError(f"--part {part}: it is done here, by this process. Leave out --on and --jobs.")
        return cls(engine, ListPart.parse(part) if part is not None else None)

    @property
    def in_jobs(self) -> bool:
        """Whether other processes do the work."""
        return self.part is None and self.engine != OnThisMachine(1)

    @property
    def elsewhere(self) -> bool:
        """Whether other machines do."""
        return not isinstance(self.engine, OnThisMachine)

    def parts(self, items: int) -> int:
        """How many parts some items make."""
        return max(1, min(self.engine.at_once or _OTHERWISE, items))
