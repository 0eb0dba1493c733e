"""``lnsegfm pretrain``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lnsegfm.cli.console import console
from lnsegfm.cli.job_file import Job, WriteJob
from lnsegfm.cli.job_file import write_job as keep_job
from lnsegfm.cli.job_options import Jobs, On, OnlyPart, Sharing
from lnsegfm.cli.prepare_apart import prepare_apart, require_preparing
from lnsegfm.cli.shared_options import (
    Absent,
    AllowEmpty,
    AsJson,
    Data,
    Device,
    Exclude,
    KeepLabels,
    Labels,
    Merge,
    Mirror,
    Mirroring,
    OnlyCases,
    Workers,
    print_json,
)
from lnsegfm.progress import StoppedBySignals

if TYPE_CHECKING:
    from lnsegfm.workflows.pretrain import PretrainRun


def pretrain(
    context: typer.Context,
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the base; the same command continues one that was stopped.")],
    architecture: Annotated[str, typer.Option(help="The network (see `lnsegfm architectures`).")] = "nnunet",
    preset: Annotated[
        str,
        typer.Option(
            help="Size of network and training: tiny (minutes on a CPU), small (an hour or so on one), default "
            "(nnU-Net's own plans; for a GPU), or "
            "release (patch and schedule of the paper's release)."
        ),
    ] = "tiny",
    plans: Annotated[
        Path | None, typer.Option(help="An nnUNetPlans.json instead of an architecture and a preset.")
    ] = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option(metavar="GB", help="Plan for a GPU of so many GB, with --preset default; the architecture's."),
    ] = None,
    checkpointing: Annotated[
        bool,
        typer.Option(
            "--checkpointing/--no-checkpointing",
            help="SwinUNETR only: compute activations again in the backward pass; less memory, more time.",
        ),
    ] = False,
    patch_size: Annotated[
        tuple[int, int, int] | None, typer.Option(metavar="Z Y X", help="Patch in voxels; the plans' unless given.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Patches in one training step; the plans' unless given.")
    ] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Training steps; the preset's unless given.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate; the preset's unless given.")] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Stop training after this long; the rate falls to 0 by then."),
    ] = None,
    held_out: Annotated[
        float,
        typer.Option(
            min=0,
            help="Hold out this many scans, or this share of them if below 1, and evaluate on them; 0 trains on all.",
        ),
    ] = 0,
    gpus: Annotated[
        int, typer.Option(min=1, help="Processes that train together, a GPU each (with --device cpu, on the CPU).")
    ] = 1,
    prepared: Annotated[
        str,
        typer.Option(
            metavar="half|float32",
            help="How prepared scans are stored: half the bits where that changes no normalised intensity by more than "
            "0.002, or all of them.",
        ),
    ] = "half",
    preprocessed: Annotated[
        Path | None,
        typer.Option(
            help="Folder of this data set in nnUNet_preprocessed: nnU-Net's plans and preprocessed scans are taken."
        ),
    ] = None,
    write_preprocessed: Annotated[
        Path | None, typer.Option(help="A folder nnUNet_preprocessed to write the prepared scans to for nnU-Net, too.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of everything random; the same seed gives the same model on a CPU.")
    ] = 0,
    cases: OnlyCases = None,
    exclude: Exclude = None,
    keep_labels: KeepLabels = None,
    merge: Merge = None,
    absent: Absent = None,
    label: Labels = None,
    allow_empty: AllowEmpty = False,
    device: Device = "auto",
    workers: Workers = None,
    mirroring: Mirroring = True,
    mirror: Mirror = "auto",
    prepare_only: Annotated[
        bool,
        typer.Option("--prepare-only", help="Read and prepare the scans, and end; without it the same command trains."),
    ] = False,
    on: On = "local",
    jobs: Jobs = None,
    part: OnlyPart = None,
    job: Job = None,  # noqa: ARG001 - its callback takes it
    write_job: WriteJob = None,
    as_json: AsJson = False,
) -> None:
    """Train a base model from labelled scans. Not for clinical use."""
    from lnsegfm.datasets.case_choice import named_cases
    from lnsegfm.datasets.label_choice import comma_separated, merged_labels
    from lnsegfm.datasets.labels import LabelMap
    from lnsegfm.networks.architectures import find_architecture

    labels = LabelMap.from_options(label or ())
    find_architecture(architecture)
    from lnsegfm.workflows.pretrain import pretrain as run
    from lnsegfm.workflows.pretrain_plan import PretrainSettings
    from lnsegfm.workflows.scan_preparation import PreparationRequest, require_free_or_prepared

    sharing = Sharing.of(on, jobs, part)
    require_preparing(sharing, prepare_only)
    if not prepare_only and _joined(device):
        return
    chosen = named_cases(cases, exclude)
    training = PretrainSettings(
        architecture=architecture,
        preset=preset,
        plans=plans,
        gpu_memory_gb=gpu_memory,
        checkpointing=checkpointing,
        patch_size=patch_size,
        batch_size=batch_size,
        iterations=iterations,
        lr=lr,
        time_limit_s=time_limit,
        held_out=held_out,
        seed=seed,
        mirroring=mirroring,
        mirror=mirror,
        gpus=gpus,
        prepared=prepared,
        preprocessed=preprocessed,
        cases=chosen.cases,
        exclude=chosen.exclude,
        keep_labels=comma_separated(keep_labels),
        merge=merged_labels(merge or ()),
        absent=comma_separated(absent),
    )
    require_free_or_prepared(out)
    if write_job is not None:
        keep_job(context, write_job)
    if prepare_only:
        asked = PreparationRequest(data, out, training, labels, allow_empty, workers, write_preprocessed)
        prepare_apart(context, sharing, asked, as_json)
        return
    with console() as progress:
        base = run(
            data,
            out,
            training,
            labels=labels,
            allow_empty=allow_empty,
            device=device,
            workers=workers,
            progress=progress,
            write_preprocessed=write_preprocessed,
        )
    if as_json:
        print_json({key: value for key, value in base.record.items() if key != "losses"})
    else:
        show(base)


def _joined(device: str) -> bool:
    """Train with the first process, where torchrun or srun started several and this is another one."""
    from lnsegfm.training.launched import LaunchedProcess, join_training

    process = LaunchedProcess.of_environment()
    if process is None or not process.rank:
        return False
    from lnsegfm.nnunet.environment import choose_device

    join_training(process, choose_device(device), StoppedBySignals())
    return True


def show(base: PretrainRun) -> None:
    """Print the base's Dice on its held-out scans, and where it is."""
    if base.evaluation is not None:
        for label, by_metric in base.evaluation.summary().items():
            dice = by_metric["dice"]
            print(f"{label}: Dice {dice.mean:.3f} (mean), {dice.median:.3f} (median), {dice.n} held-out cases")
    print(f"Model    {base.model}")
    print("Not for clinical use.")
