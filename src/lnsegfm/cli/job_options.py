"""``--on``, ``--jobs`` and ``--part``."""

from __future__ import annotations

from contextvars import ContextVar
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
        help="Where jobs run: local, slurm[:PARTITION,gpus=1,...] or ray[:HOST:PORT,...].",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs", metavar="N", help="Jobs at a time, 1 on this machine unless given; its cores and GPUs are shared out."
    ),
]
OnlyPart = Annotated[
    str | None,
    typer.Option(
        "--part", metavar="I/N", help="Do the I-th of N parts alone, for a scheduler of your own; all share one --out."
    ),
]
OF_A_LIST: ContextVar[bool] = ContextVar("OF_A_LIST", default=False)
"""Whether the command that runs is a job of another one, which gathers what its parts have done."""
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
