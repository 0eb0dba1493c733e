"""``lnsegfm data check``: whether a dataset can be trained on, and what is suspicious about it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lnsegfm.cli.job_options import Jobs, On, OnlyPart, Sharing
from lnsegfm.cli.shared_options import (
    AcceptAutomatic,
    AllowEmpty,
    AsJson,
    Labels,
    ModelAxes,
    PairByGeometry,
    ResampleUneven,
    SeriesSelectors,
    Straighten,
    pairs,
    print_json,
)
from lnsegfm.cli.work_in_parts import print_pending, shared_work
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.grouped_lines import grouped_lines
from lnsegfm.jobs.parts import PartsPending
from lnsegfm.messages import counted, printable

if TYPE_CHECKING:
    from lnsegfm.datasets.check import DatasetCheck
    from lnsegfm.datasets.dataset import Dataset
    from lnsegfm.datasets.doctor import Diagnosis, Finding
    from lnsegfm.jobs.pieces import WorkSharer
    from lnsegfm.progress import Progress

_MOST_OF_A_KIND = 4  # rows of the table of warnings and notes; all are in --json and --html


def check(
    context: typer.Context,
    data: Annotated[
        Path,
        typer.Argument(
            help="Labelled scans: an nnU-Net raw dataset, a folder with images/ and labels/, or a folder tree or zip "
            "of DICOM."
        ),
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            help="A base that the data are meant for: what finetune would refuse with it, and what it knows of the "
            "data. A model folder, the folder of a run, or a name."
        ),
    ] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map", metavar="THEIRS=OURS", help="A label of the base that the data know by another name; repeat."
        ),
    ] = None,
    model_axes: ModelAxes = None,
    label: Labels = None,
    allow_empty: AllowEmpty = False,
    roi: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=LABEL", help="Structures of a DICOM tree that are wanted, as in `data convert`; else all."
        ),
    ] = None,
    accept_automatic: AcceptAutomatic = False,
    pair_by_geometry: PairByGeometry = False,
    series: SeriesSelectors = None,
    straighten: Straighten = False,
    resample_uneven: ResampleUneven = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with a picture of each case.")] = None,
    fix: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Fix this in a copy (--out): straighten, copy-header, nan-to-air, offset-1024, clip-hu, "
            "drop-fragments, drop-duplicates; repeat for more.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="New folder for the fixed copy.")] = None,
    on: On = "local",
    jobs: Jobs = None,
    part: OnlyPart = None,
    work: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where parts meet, of --part or on a cluster; all of them see it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read every scan and label of DATA and report what is wrong or suspicious: errors, warnings and notes.

    Exit code 2 if there is an error, which would keep a training from starting. Nothing in DATA is ever changed.
    """
    sharing = Sharing.of(on, jobs, part)
    if bool(fix) != (out is not None):
        raise ConfigError("--fix and --out: a fix is written to a copy. Give both, or neither.")
    if html is not None:
        _require_place(html, data)
    from lnsegfm.cli.console import console

    record = None
    if model is None and (map_ or model_axes):
        raise ConfigError(f"{'--map' if map_ else '--model-axes'}: it says something of a base. Name it with --model.")
    dataset = _dataset(data, label or [], allow_empty, model)
    if fix and out is not None:
        from lnsegfm.datasets.doctor import require_fixable, write_fixed_copy

        if dataset is None:
            raise ConfigError(f"--fix {fix[0]}: DICOM is not fixed. Convert it first: lnsegfm data convert.")
        require_fixable(dataset, fix, out)
    tree = _TreeRequest(
        tuple(roi or ()), tuple(series or ()), accept_automatic, pair_by_geometry, straighten, resample_uneven
    )
    with console() as progress, shared_work(context, sharing, work, progress, "--work") as sharer:
        try:
            diagnosis = _diagnosed(data, dataset, tree, sharer, progress)
        except PartsPending as pending:
            print_pending(pending, "checked", as_json)
            return
        if model is not None and diagnosis.checked is not None:
            progress.stage(f"Checking it with {model}")
            diagnosis = diagnosis.with_findings(
                _with_base(data, model, diagnosis.checked, label or [], allow_empty, map_ or [], model_axes)
            )
        if fix and out is not None and dataset is not None:
            progress.stage("Writing the fixed copy")
            record = write_fixed_copy(dataset, diagnosis, fix, out, progress=progress)
        if html is not None:
            from lnsegfm.report.doctor_page import write_doctor_page

            progress.stage("Drawing the page")
            write_doctor_page(html, diagnosis, progress=progress)
    if as_json:
        print_json(diagnosis.to_json())
    else:
        _print(dataset, diagnosis)
        if record is not None:
            fixes = "1 fix" if len(record["done"]) == 1 else f"{len(record['done'])} fixes"
            print(f"Copy     {out} ({record['files']} files, {fixes}: see fixes.json there)")
        if html is not None:
            print(f"Page     {html}")
    errors = diagnosis.with_severity("error")
    for line in grouped_lines(map(str, errors)):
        print(f"lnsegfm: {printable(line)}", file=sys.stderr)
    if errors:
        raise typer.Exit(2)


def _require_place(html: Path, data: Path) -> None:
    place, root = html.resolve(), data.resolve()
    if place.is_dir():
        raise ConfigError(f"--html {html}: it is a folder. Name a file.")
    if place == root or root in place.parents:
        raise ConfigError(f"--html {html}: it lies in the data, which is only read. Name a file elsewhere.")


def _with_base(
    data: Path,
    model: Path,
    checked: DatasetCheck,
    label: list[str],
    allow_empty: bool,
    names: list[str],
    axes: str | None,
) -> list[Finding]:
    from lnsegfm.datasets.labels import LabelMap
    from lnsegfm.workflows.base_check import check_with_base  # torch and nnU-Net load only now

    return check_with_base(
        data,
        model,
        checked,
        labels=LabelMap.from_options(label),
        allow_empty=allow_empty,
        label_names=pairs(names, "--map", "lymph_node=node"),
        model_axes=axes,
    )


def _dataset(data: Path, label: list[str], allow_empty: bool, model: Path | None = None) -> Dataset | None:
    """The dataset in a folder; None where it is no dataset's folder, and so may hold DICOM.

    Where neither the data nor the options name its labels, they are the model's, as in a fine-tuning.
    """
    from lnsegfm.datasets.dataset import open_dataset
    from lnsegfm.datasets.labels import LabelMap

    if data.is_dir() and any((data / name).exists() for name in ("dataset.json", "imagesTr", "images", "labels")):
        default = None
        if model is not None:
            from lnsegfm.models.model_folder import read_model

            base = read_model(model, whole=False)
            default = None if base.covers else base.mask_labels
        return open_dataset(data, LabelMap.from_options(label), default_labels=default, allow_empty=allow_empty)
    if model is not None and data.exists():
        raise ConfigError(
            f"--model {model}: a base takes a dataset, and {data} is none. Convert it first: lnsegfm data convert."
        )
    if not data.exists():
        raise DataError(f"{data}: no such file or folder. Give a dataset, or a folder tree or zip of DICOM.")
    return None


@dataclass(frozen=True)
class _TreeRequest:
    """The options that mean something to a DICOM tree alone."""

    roi: tuple[str, ...]
    series: tuple[str, ...]
    accept_automatic: bool
    pair_by_geometry: bool
    straighten: bool
    resample_uneven: bool

    @property
    def given(self) -> list[str]:
        """Names of the options that are given."""
        return [f"--{each.name.replace('_', '-')}" for each in fields(self) if getattr(self, each.name)]


def _diagnosed(
    data: Path, dataset: Dataset | None, tree: _TreeRequest, sharer: WorkSharer, progress: Progress
) -> Diagnosis:
    if dataset is not None:
        if tree.given:
            raise ConfigError(f"{', '.join(tree.given)}: for DICOM trees, and {data} is a dataset. Leave them out.")
        from lnsegfm.datasets.doctor import diagnose

        return diagnose(dataset, sharer=sharer, progress=progress)
    from lnsegfm.datasets.doctor.dicom_diagnosis import diagnose_tree
    from lnsegfm.imaging.dicom.annotated_series import PairingOptions
    from lnsegfm.imaging.dicom.series_index import SeriesOptions

    return diagnose_tree(
        data,
        patterns=tree.roi,
        options=PairingOptions(accept_automatic=tree.accept_automatic, by_geometry=tree.pair_by_geometry),
        selectors=tree.series,
        stacks=SeriesOptions(tree.straighten, tree.resample_uneven),
        sharer=sharer,
        progress=progress,
    )


def _print(dataset: Dataset | None, diagnosis: Diagnosis) -> None:
    errors, warnings, notes = (diagnosis.with_severity(severity) for severity in ("error", "warning", "note"))
    number = len(diagnosis.cases)
    cases = f"{number} series" if dataset is None else "1 case" if number == 1 else f"{number} cases"
    if not errors:
        _print_facts(dataset, diagnosis)
    if warnings or notes:
        _print_findings([*warnings, *notes])
    if not errors and not warnings:
        aside = f" ({counted(len(notes), 'note')})" if notes else ""
        print(f"{cases}, no errors and no warnings{aside}.")
    elif not errors:
        print(f"{cases}, no errors, {counted(len(warnings), 'warning')}, {counted(len(notes), 'note')}.")


def _print_facts(dataset: Dataset | None, diagnosis: Diagnosis) -> None:
    from rich.console import Console
    from rich.markup import escape  # a name may hold square brackets
    from rich.table import Table

    facts = diagnosis.facts
    table = Table(show_header=False)
    table.add_row("cases" if dataset else "series", str(facts["cases"]))
    if dataset is not None:
        table.add_row("channels", escape(printable(", ".join(dataset.channels))))
    if facts["spacing_mm"]["smallest"]:
        low, high = (" x ".join(f"{v:.4g}" for v in facts["spacing_mm"][end]) for end in ("smallest", "largest"))
        table.add_row("spacing mm (z, y, x)", low if low == high else f"{low} to {high}")
    for name, cases in facts.get("cases_with_label", {}).items():
        table.add_row(
            escape(printable(f"label {name}={facts['labels'][name]}")), f"in {cases} of {facts['cases']} cases"
        )
    for held, noun in (("structures", "structures"), ("segmentations", "segments")):
        for path, names in facts.get(held, {}).items():
            table.add_row(escape(printable(f"{noun} of {Path(path).name}")), escape(printable(", ".join(names))))
    if dataset is not None:
        table.add_row("labels named by", dataset.labels_from)
    Console().print(table)


def _print_findings(findings: list[Finding]) -> None:
    from itertools import groupby

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from lnsegfm.datasets.doctor import SEVERITIES

    table = Table("", "kind")
    table.add_column("case", overflow="fold", max_width=24)  # the ends of UIDs tell them apart
    table.add_column("what was found, and what to do")
    ranked = sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), f.kind))
    for (severity, kind), group in groupby(ranked, key=lambda f: (f.severity, f.kind)):
        same, heading = list(group), (severity, kind)
        for f in same[:_MOST_OF_A_KIND]:
            place = f.case or (f.file.name if f.file else "all")
            table.add_row(*heading, *(escape(printable(text)) for text in (place, f.what)))
            heading = ("", "")
        if len(same) > _MOST_OF_A_KIND:
            table.add_row("", "", "...", f"{len(same) - _MOST_OF_A_KIND} more of this kind: --json or --html")
        for remedy, fix in dict.fromkeys((f.remedy, f.fix) for f in same[:_MOST_OF_A_KIND]):
            offer = f" (--fix {fix})" if fix else ""
            table.add_row("", "", "", f"-> {escape(printable(remedy))}{offer}")
        table.add_section()
    Console().print(table)
