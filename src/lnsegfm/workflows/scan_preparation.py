"""Scans of a pretraining read and prepared before it, by one process or by many that share a folder.

Two steps, since plans follow from what was found in all scans: first each is read, then each is prepared. What a scan
gave is a file of its own, so any number of processes, on any machines, take a share of either step, and a share that
is done again, or by two at once, does no harm. The training finds all of it and goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import ConfigError, RunMismatch
from lnsegfm.jobs.parts import ListPart, PartsPending
from lnsegfm.messages import differences
from lnsegfm.progress import Progress
from lnsegfm.storage import PARTIAL, content_hash, read_json, staging_folder, write_json
from lnsegfm.training.prepared_cache import preparing_settings
from lnsegfm.training.prepared_cases import write_prepared
from lnsegfm.training.prepared_files import PreparedFiles
from lnsegfm.training.preprocessed_folder import NnunetFolder, write_dataset_files
from lnsegfm.training.train_process import preparing_processes
from lnsegfm.training.training_job import PREPARED
from lnsegfm.workflows.pretrain_plan import PretrainPlan, PretrainSettings, plan_pretrain
from lnsegfm.workflows.run_folder import RECIPE, require_claimable, require_free

FORMAT = "lnsegfm.preparation/1"
PREPARATION = "work/preparation.json"
"""Says how the scans beside it were prepared, while no run has the folder."""


@dataclass(frozen=True)
class PreparationRequest:
    """What scans are prepared for.

    Args:
        data: Labelled scans.
        out: The folder of the base that will be trained on them.
        training: Its settings; those of the training alone may be others later.
        labels: What the masks' numbers mean, where the data do not say it themselves.
        allow_empty: Keep scans whose label is empty.
        workers: Processes that read and prepare scans, at most; a core each unless given.
        write_preprocessed: A folder such as ``nnUNet_preprocessed``, to which the scans are written for nnU-Net too.

    Raises:
        ConfigError: The scans are prepared already.
    """

    data: Path
    out: Path
    training: PretrainSettings
    labels: LabelMap | None = None
    allow_empty: bool = False
    workers: int | None = None
    write_preprocessed: Path | None = None

    def __post_init__(self) -> None:
        if self.training.preprocessed is not None:
            raise ConfigError(
                f"--prepare-only: the scans in {self.training.preprocessed} are prepared already. Leave it out."
            )


@dataclass(frozen=True)
class PreparedScans:
    """All scans of a pretraining, prepared.

    Args:
        folder: Where they lie.
        scans: How many.
        size: Bytes of their files.
    """

    folder: Path
    scans: int
    size: int

    def to_json(self) -> dict[str, Any]:
        """For a program to read."""
        return {"format": FORMAT, "folder": str(self.folder), "scans": self.scans, "bytes": self.size}


def prepare_for_pretraining(
    request: PreparationRequest, progress: Progress, part: ListPart | None = None
) -> PreparedScans:
    """Read scans, or, when all are read, prepare them; what is done is not done again.

    Args:
        request: What for.
        progress: Where progress is reported.
        part: Take this share of either step alone; calls for the other shares may run at the same time.

    Raises:
        PartsPending: The share is done, and others are not.
        DataError: Cases that cannot be used; all of them are listed.
        RunMismatch: The folder holds something else, or scans that were prepared in another way.
    """
    out, processes = request.out, preparing_processes(request.workers)
    require_free_or_prepared(out)
    with _planning_folder(out) as work:
        planned = plan_pretrain(
            request.data,
            request.training,
            work,
            labels=request.labels,
            allow_empty=request.allow_empty,
            progress=progress,
            readings=readings_folder(out),
            processes=processes,
            part=part,
        )
    if (out / RECIPE).is_file():
        require_claimable(out, planned.to_json())
    elif not take_prepared(out, planned):
        write_json(out / PREPARATION, _way(planned))
    files = PreparedFiles(out / PREPARED, request.training.prepared)
    also = folder_for_nnunet(request.write_preprocessed, planned)
    mine = planned.shots if part is None else part.take(planned.shots)
    write_prepared(mine, planned.start, files, progress, processes=processes, also=also)
    if part is not None:
        missing = {case.name for case in planned.shots if not files.has(case.name)}
        shares = {number: ListPart(number, part.of).take(planned.shots) for number in range(1, part.of + 1)}
        if lacking := [number for number, share in shares.items() if missing & {case.name for case in share}]:
            raise PartsPending(part, len(mine), lacking, "prepared")
    size = sum(file.stat().st_size for file in files.folder.iterdir() if not file.name.startswith(PARTIAL))
    return PreparedScans(files.folder, len(planned.shots), size)


def readings_folder(out: Path) -> Path:
    """Where what is found in scans is kept, beside a base, until the base is finished."""
    return out.with_name(f".{out.name}-scans")


@contextmanager
def _planning_folder(out: Path) -> Iterator[Path]:
    """A folder for nnU-Net's planner that no other process has."""
    with staging_folder(out.with_name(f"{out.name}-plans")) as folder:
        yield folder / "plans"


def folder_for_nnunet(place: Path | None, planned: PretrainPlan) -> NnunetFolder | None:
    """Where prepared scans are written for nnU-Net, with what it reads beside them; None where that is not asked.

    Args:
        place: A folder such as ``nnUNet_preprocessed``.
        planned: The pretraining.
    """
    if place is None:
        return None
    start = planned.start
    dataset = place / str(start.plans["dataset_name"])
    write_dataset_files(dataset, start.plans, start.dataset_json, planned.shots)
    return NnunetFolder.of(dataset, start.plans, start.configuration)


def require_free_or_prepared(out: Path) -> None:
    """Refuse a folder that can neither become a base's nor holds scans prepared for one.

    Raises:
        RunMismatch: It is not empty and holds neither.
        ConfigError: It is a file.
    """
    if not (out / PREPARATION).is_file():
        require_free(out)


def take_prepared(out: Path, planned: PretrainPlan) -> bool:
    """Recognise scans that were prepared before the training; settings that they do not depend on may have changed.

    Args:
        out: The base's folder; it becomes the run's where scans were prepared in it.
        planned: The pretraining.

    Returns:
        Whether there are any.

    Raises:
        RunMismatch: They were prepared in another way.
    """
    file = out / PREPARATION
    if not file.is_file():
        return False
    there, here = read_json(file), _way(planned)
    if there.get("identity") != here["identity"]:
        changed = "; ".join(differences(there.get("settings", {}), here["settings"])) or "other settings"
        raise RunMismatch(
            f"{out}: scans were prepared there in another way ({changed}). Choose another --out, or use the "
            "settings of --prepare-only."
        )
    return True


def claim_prepared(out: Path, planned: PretrainPlan) -> None:
    """Make the folder of prepared scans the run's own; nothing where there are none, or it is that already."""
    if take_prepared(out, planned) and not (out / RECIPE).is_file():
        write_json(out / RECIPE, planned.to_json())


def _way(planned: PretrainPlan) -> dict[str, Any]:
    """How scans are prepared."""
    start, settings = planned.start, planned.settings
    configuration = start.plans["configurations"][start.configuration]
    way = preparing_settings(start.plans, configuration, start.dataset_json)
    stated = {
        "prepared": settings.prepared,
        "spacing": list(configuration["spacing"]),
        "axes": way["axes"],
        "labels": way["data"]["labels"],
        "data": planned.data_json["sha256"][:12],
        "intensities and resampling": content_hash([way["plans"], way["configuration"]])[:12],
    }
    return {"format": FORMAT, "identity": content_hash([way, stated]), "settings": stated}
