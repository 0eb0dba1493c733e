"""``lnsegfm pretrain --prepare-only``: scans are read and prepared apart from the training, by one process or many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from lnsegfm.cli.console import console
from lnsegfm.cli.job_options import OF_A_LIST, Sharing
from lnsegfm.cli.shared_options import print_json
from lnsegfm.cli.work_in_parts import print_pending, require_done, run_parts
from lnsegfm.errors import ConfigError
from lnsegfm.jobs.engines import OnRay, OnSlurm
from lnsegfm.jobs.parts import PartsPending
from lnsegfm.messages import counted

if TYPE_CHECKING:
    from lnsegfm.progress import Progress
    from lnsegfm.workflows.scan_preparation import PreparationRequest

_STEPS = ("Reading", "Preparing")


def require_preparing(sharing: Sharing, prepare_only: bool) -> None:
    """Refuse to share out a training.

    Raises:
        ConfigError: ``--on``, ``--jobs`` or ``--part`` without ``--prepare-only``.
    """
    if not prepare_only and (sharing.in_jobs or sharing.part is not None):
        option = f"--part {sharing.part}" if sharing.part is not None else "--on, --jobs"
        raise ConfigError(
            f"{option}: jobs read and prepare scans, they do not train. Add --prepare-only; the same command without "
            "both trains then."
        )


def prepare_apart(context: typer.Context, sharing: Sharing, request: PreparationRequest, as_json: bool) -> None:
    """Prepare the scans, a part of them, or have it done in jobs; say what was done."""
    from lnsegfm.workflows.scan_preparation import prepare_for_pretraining

    with console() as progress:
        if sharing.in_jobs:
            _have_done(context, sharing, request, progress)
        try:
            found = prepare_for_pretraining(request, progress, sharing.part)
        except PartsPending as pending:
            print_pending(pending, "done", as_json)
            if pending.what == "read" and not as_json and not OF_A_LIST.get():
                print("Run the parts once more when all are read: then they prepare.")
            return
    if as_json:
        print_json(found.to_json())
    else:
        print(f"{counted(found.scans, 'scan')} prepared in {found.folder}: {found.size / 1e6:.1f} MB.")
        print("The same command without --prepare-only trains on them.")


def _have_done(context: typer.Context, sharing: Sharing, request: PreparationRequest, progress: Progress) -> None:
    """Have all scans read in jobs, and then prepared."""
    from lnsegfm.datasets.dataset import open_dataset
    from lnsegfm.workflows.scan_preparation import readings_folder

    names = [case.name for case in open_dataset(request.data, request.labels, allow_empty=request.allow_empty).cases]
    changed = {"write_job": None, "workers": request.workers or _workers(sharing)}
    place = readings_folder(request.out)
    place.mkdir(parents=True, exist_ok=True)
    for step in _STEPS:
        progress.stage(f"{step} {counted(len(names), 'case')}")
        require_done(run_parts(context, sharing, place, progress, names, changed))


def _workers(sharing: Sharing) -> int | None:
    """Processes of a job: a core each of those that it has; None leaves it to the machine."""
    from lnsegfm.cores import usable_cores

    engine = sharing.engine
    if isinstance(engine, OnSlurm | OnRay):
        return max(1, int(engine.cpus))
    return max(1, usable_cores() // engine.at_once)
