"""``lnsegfm study run``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lnsegfm.cli.shared_options import AsJson, Device, Workers, print_json
from lnsegfm.cli.study_lines import show_outcome, study_folder

if TYPE_CHECKING:
    from lnsegfm.study.study_collection import StudyOutcome

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.toml", help="What is compared on what (docs/study.md).")]
StudyOut = Annotated[
    Path | None,
    typer.Option(help="Folder of its results; beside STUDY.toml and named as it, without .toml, unless given."),
]


def study_run(
    study: StudyFile,
    out: StudyOut = None,
    on: Annotated[
        str,
        typer.Option(metavar="WHERE", help="Where runs are done: local, slurm[:PARTITION,KEY=VALUE] or ray[:ADDRESS]."),
    ] = "local",
    jobs: Annotated[int | None, typer.Option(min=1, metavar="N", help="Runs at a time; here 1 unless given.")] = None,
    part: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Only the I-th of N parts of the runs, for a scheduler of your own."),
    ] = None,
    device: Device = "auto",
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Do the runs of a study that are not done; the same command goes on where it was, and does what failed again.

    Each run is trained, predicted and scored as by `lnsegfm finetune`, and becomes rows of study.sqlite.

    Not for clinical use.
    """
    from lnsegfm.cli.console import console
    from lnsegfm.jobs.engines import engine_of
    from lnsegfm.jobs.parts import ListPart
    from lnsegfm.study.study_file import read_study

    engine, mine = engine_of(on, jobs), ListPart.parse(part) if part is not None else None
    declared = read_study(study)
    folder = study_folder(study, out)
    from lnsegfm.study.run_study import run_study  # torch and nnU-Net load only now

    with console() as progress:
        outcome: StudyOutcome = run_study(
            declared, folder, on=engine, part=mine, device=device, workers=workers, progress=progress
        )
    if as_json:
        print_json(outcome.to_json())
    else:
        show_outcome(outcome, folder)
    if outcome.failed:
        raise typer.Exit(1)
