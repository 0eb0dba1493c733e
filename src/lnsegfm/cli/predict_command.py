"""``lnsegfm predict``."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lnsegfm.cli.console import console
from lnsegfm.cli.job_options import Jobs, On, OnlyPart, Sharing
from lnsegfm.cli.series_lines import print_choice, print_series_notes
from lnsegfm.cli.shared_options import (
    AsJson,
    Configuration,
    Device,
    Exclude,
    Folds,
    Memory,
    Mirroring,
    ModelAxes,
    OnlyCases,
    ResampleUneven,
    SeriesSelectors,
    Straighten,
    print_json,
    require_folder,
)
from lnsegfm.cli.work_in_parts import run_parts
from lnsegfm.datasets.case_choice import named_cases
from lnsegfm.errors import ConfigError
from lnsegfm.grouped_lines import grouped_lines
from lnsegfm.imaging.dicom.rtstruct_options import RtstructOptions, Thinning
from lnsegfm.imaging.dicom.rtstruct_profiles import PROFILES as RTSTRUCT_PROFILES
from lnsegfm.inference.speed_presets import PRESETS
from lnsegfm.messages import counted, printable
from lnsegfm.prediction.predict_options import PredictOptions


def predict(
    context: typer.Context,
    model: Annotated[
        Path, typer.Argument(help="A model folder, the folder of a run, or a name (see `lnsegfm models list`).")
    ],
    scans: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="A scan, a folder of scans or a dataset (NIfTI, NRRD, MHA); a DICOM file, folder, tree or zip; or a "
            "CSV with the column path.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the masks; one file a scan, named as the scan.")],
    cases: OnlyCases = None,
    exclude: Exclude = None,
    configuration: Configuration = None,
    fold: Folds = None,
    previous_stage: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL", help="For the later stage of a cascade the model of its first, where it is not found."
        ),
    ] = None,
    with_: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            metavar="MODEL",
            help="A further model, whose probabilities are averaged with MODEL's as nnUNetv2_ensemble does; repeat.",
        ),
    ] = None,
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="A,B",
            help="What to write for scans from DICOM beside the NIfTI mask: rtstruct, seg, or both.",
        ),
    ] = "nifti",
    per_node: Annotated[
        bool, typer.Option("--per-node", help="A structure or segment for each node, numbered as --nodes does.")
    ] = False,
    profile: Annotated[
        str, typer.Option(help=f"The planning system that an rtstruct is for, untried: {', '.join(RTSTRUCT_PROFILES)}.")
    ] = "generic",
    holes: Annotated[
        str | None,
        typer.Option(metavar="HOW", help="Holes in an rtstruct: separate contours, or a keyhole a contour."),
    ] = None,
    thin: Annotated[
        str | None,
        typer.Option(
            metavar="MM[,SHARE]",
            help="Fewer points in an rtstruct: contours leave the mask's edges by at most MM, volumes change by at "
            "most SHARE (0.01).",
        ),
    ] = None,
    short_names: Annotated[
        bool, typer.Option("--short-names", help="Names of at most 16 characters in an rtstruct.")
    ] = False,
    add_to: Annotated[
        Path | None,
        typer.Option(
            metavar="RTSTRUCT",
            help="A structure set of the scan, or a folder of them, that an rtstruct continues; it stays as it is.",
        ),
    ] = None,
    names: Annotated[
        str,
        typer.Option(
            help="What masks of DICOM series are called: code (a keyed pseudonym), series (its UID) or patient "
            "(PatientID and series number)."
        ),
    ] = "code",
    straighten: Straighten = False,
    series: SeriesSelectors = None,
    resample_uneven: ResampleUneven = False,
    model_axes: ModelAxes = None,
    step: Annotated[
        float, typer.Option(help="How far the window moves, as a share of its width; above 0, at most 1.")
    ] = 0.5,
    mirroring: Mirroring = True,
    postprocessing: Annotated[
        bool,
        typer.Option(
            "--postprocessing/--no-postprocessing",
            help="Apply the rules stored with the model: largest component, smallest volume.",
        ),
    ] = True,
    fast: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET",
            help=f"A faster setting at a price that `lnsegfm presets` finds: {', '.join(PRESETS)}.",
        ),
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Round as nnU-Net does, for its very masks; slower.")] = False,
    air: Annotated[
        bool,
        typer.Option("--air/--no-air", help="Ask the network once for all windows of nothing but air; same masks."),
    ] = True,
    memory: Memory = None,
    flags: Annotated[
        bool, typer.Option("--flags/--no-flags", help="Look for reasons to check a mask; kept in OUT/flags.json.")
    ] = True,
    nodes: Annotated[
        bool, typer.Option("--nodes", help="Measure each mask's nodes: CASE.nodes.csv and CASE.nodes.json beside it.")
    ] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Keep each label's probability in each voxel: CASE.npz, large.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Predict again what is there already.")] = False,
    device: Device = "auto",
    on: On = "local",
    jobs: Jobs = None,
    part: OnlyPart = None,
    as_json: AsJson = False,
) -> None:
    """Segment scans; the model is loaded once, finished scans are skipped when the command is run again.

    With --exact the masks are those of nnUNetv2_predict, voxel for voxel; else they are but for rounding. Exit code 1
    when some scans could not be predicted; the others are done. Exit code 2 when none could. Not for clinical use.
    """
    require_folder(out)
    if out.resolve() in (scans.resolve(), scans.resolve().parent if scans.is_file() else None):
        raise ConfigError(f"--out {out}: the scans lie there, and masks have their names. Name another folder.")
    chosen = named_cases(cases, exclude)
    sharing = Sharing.of(on, jobs, part)
    options = PredictOptions(
        device=device,
        mirroring=mirroring,
        postprocessing=postprocessing,
        step=step,
        fast=fast,
        exact=exact,
        air=air,
        memory=memory,
        flags=flags,
        overwrite=overwrite,
        nodes=nodes,
        probabilities=probabilities,
        formats=tuple(part.strip() for part in format_.split(",")),
        per_node=per_node,
        names=names,
        cases=chosen.cases,
        exclude=chosen.exclude,
        straighten=straighten,
        series=tuple(series or ()),
        resample_uneven=resample_uneven,
        model_axes=model_axes,
        rtstruct=RtstructOptions(
            profile=profile,
            holes=holes,
            thin=Thinning.of(thin) if thin is not None else None,
            short_names=short_names,
            add_to=add_to,
        ),
    )
    from lnsegfm.cli.flag_lines import flag_lines
    from lnsegfm.datasets.labels import node_labels
    from lnsegfm.models.model_folder import ModelChoice, read_models
    from lnsegfm.nnunet.environment import choose_device
    from lnsegfm.prediction.case_names import Names, one_of
    from lnsegfm.prediction.inputs import find_inputs
    from lnsegfm.prediction.predict_cases import as_json as summary
    from lnsegfm.prediction.predict_cases import predict_cases
    from lnsegfm.prediction.predict_parts import predict_by_others
    from lnsegfm.prediction.writers.writer_table import formats_named, refers_to_dicom
    from lnsegfm.workflows.preset_benchmark import preset_summary

    choice = ModelChoice(configuration=configuration, folds=tuple(fold or ()), previous_stage=previous_stage)
    dicom = refers_to_dicom(formats_named(options.formats))
    naming = one_of(Names, names, "--names")
    with console() as progress, ExitStack() as unpacked:
        if not sharing.elsewhere:
            choose_device(device)
        loaded = read_models((model, *(with_ or ())), choice)
        for note in loaded.notes:
            progress.stage(f"Model: {note}")
        inputs = unpacked.enter_context(
            find_inputs(
                scans,
                loaded.channels,
                names=naming,
                straighten=straighten,
                resample_uneven=resample_uneven,
                out=out,
                dicom=dicom,
                series=options.series,
                choice=options.choice,
            )
        )
        if (nodes or per_node) and not node_labels(loaded.label_names):
            progress.stage(f"No label is named as nodes: all are measured ({', '.join(loaded.label_names)})")
        if fast is not None:
            progress.stage(preset_summary(loaded, fast))
        if inputs.note:
            progress.stage(inputs.note)
        mine = inputs.cases if sharing.part is None else sharing.part.take(inputs.cases)
        progress.stage(f"Predicting {counted(len(mine), 'case')}")
        if sharing.in_jobs:
            have_done = partial(run_parts, context, sharing, out, progress)
            done = predict_by_others(loaded, inputs, out, options, have_done, progress)
        else:
            done = predict_cases(
                loaded, inputs, out, options, summary=True, tell_time=True, part=sharing.part, progress=progress
            )
    if as_json:
        print_json(summary(done))
    else:
        print(f"{len(done.done)} predicted, {len(done.skipped)} were there already: {done.folder}")
        for line in flag_lines(done.flags):
            print(printable(line))
        if inputs.masks:
            names = ", ".join(mask.name for mask in inputs.masks[:3]) + (", ..." if len(inputs.masks) > 3 else "")
            print(printable(f"{counted(len(inputs.masks), 'mask')} beside their images, not predicted: {names}"))
        print_choice(inputs.series, done.passed_over)
        print_series_notes(inputs.series)
        for case, note in done.notes:
            print(printable(f"{case}: {note}"))
        print("Not for clinical use.")
    for line in grouped_lines(map(str, done.failed)):
        print(f"lnsegfm: {printable(line)}", file=sys.stderr)
    if done.failed:
        raise typer.Exit(1 if done.done or done.skipped else 2)
