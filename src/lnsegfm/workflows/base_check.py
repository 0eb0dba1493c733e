"""What of a data set depends on the base: what a fine-tuning of that model would refuse, and what it would do.

The plan of a fine-tuning itself is asked, so that its refusals are these, line for line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lnsegfm.datasets.check import DatasetCheck
from lnsegfm.datasets.doctor.finding import Finding, from_sentence
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError, LnSegFmError
from lnsegfm.grouped_lines import grouped_lines
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.orientation import turn_to
from lnsegfm.messages import counted, listed
from lnsegfm.recipe import Recipe
from lnsegfm.workflows.finetune_plan import FinetunePlan, plan

SMALL = 0.5
"""A scan that is shorter than this share of the patch, along an axis, is mostly padding there."""


def check_with_base(
    data: Path,
    model: Path,
    checked: DatasetCheck,
    *,
    labels: LabelMap | None = None,
    allow_empty: bool = False,
    label_names: Mapping[str, str] | None = None,
    model_axes: str | None = None,
) -> list[Finding]:
    """What is wrong, suspicious or worth knowing of a data set that a model is to be adapted to.

    Args:
        data: The data set's folder.
        model: The base: a model folder, the folder of a run, or the name of an imported model.
        checked: The check of the data by themselves; what it found is not repeated.
        labels: What the masks' numbers mean, where the data do not say it themselves.
        allow_empty: Scans whose label is empty are kept.
        label_names: A label of the base to its name in the data.
        model_axes: The axis code of the arrays that the base was trained on, where it does not know it.
    """
    recipe = Recipe(label_names=label_names or {}, model_axes=model_axes)
    try:
        planned = plan(data, model, recipe, labels=labels, allow_empty=allow_empty, checked=checked)
    except DataError as error:
        known = set(grouped_lines(map(str, checked.problems)))
        return [_refusal(line) for line in str(error).splitlines() if line not in known]
    except LnSegFmError as error:
        return [_refusal(line) for line in str(error).splitlines()]
    return [*_known(planned, checked), *_sizes(planned, checked), *_facts(planned)]


def _refusal(line: str) -> Finding:
    return from_sentence("base", "error", "", None, line)


def _known(planned: FinetunePlan, checked: DatasetCheck) -> list[Finding]:
    cases = planned.base.trained_scans.among(checked.scan_hashes, planned.data.subjects).cases
    if not cases:
        return []
    what = (
        f"the base was trained on {counted(len(cases), 'case')} of these, or of their patients: {listed(sorted(cases))}"
    )
    return [Finding("base-trained-on", "warning", "", None, what, "A fine-tuning holds none of them out")]


def _sizes(planned: FinetunePlan, checked: DatasetCheck) -> list[Finding]:
    """Scans that are mostly padding in a patch of the base."""
    patch, spacing = planned.sizes["patch_size"], planned.sizes["spacing_mm"]
    small = []
    for case in checked.cases:
        if case.grid is not None:
            size = _at_spacing(case.grid, planned.axes, spacing)
            if any(n < SMALL * most for n, most in zip(size, patch, strict=True)):
                small.append(f"{case.case} ({'x'.join(map(str, size))})")
    if not small:
        return []
    what = (
        f"at the base's spacing {counted(len(small), 'scan')} of {len(checked.cases)} fill less than half of its patch "
        f"({'x'.join(map(str, patch))} voxels) along an axis: {listed(small, 4)}"
    )
    remedy = "Look whether the spacing in the headers is right; else give finetune a smaller --patch-size"
    return [Finding("base-patch", "warning", "", None, what, remedy)]


def _at_spacing(grid: Grid, axes: str | None, spacing_mm: Sequence[float]) -> tuple[int, ...]:
    """Voxels (z, y, x) of a scan on the base's axes and at its spacing."""
    turned = turn_to(grid, axes).grid(grid)
    return tuple(round(n * own / new) for n, own, new in zip(turned.shape, turned.spacing_mm, spacing_mm, strict=True))


def _facts(planned: FinetunePlan) -> list[Finding]:
    """What a fine-tuning would make of the base, in its own words."""
    base, data, right = planned.base, planned.data, "Nothing, if that is right"
    fit = Finding("base-fit", "note", "", None, planned.transfer.summary(), "See finetune --dry-run for all of it")
    found = [fit, Finding("base-axes", "note", "", None, planned.orientation, right)]
    if planned.mirror:
        found.append(Finding("base-mirror", "note", "", None, planned.mirror, right))
    if tuple(base.channel_names) != tuple(data.channels):
        theirs, ours = (", ".join(names) for names in (base.channel_names, data.channels))
        what = f"the base's channels are {theirs}, those of the data {ours}"
        found.append(Finding("base-channels", "note", "", None, what, "Name them alike where they are the same"))
    if new := planned.transfer.labels_new:
        what = f"the base does not know {', '.join(new)}; it knows {', '.join(base.label_names) or 'no label'}"
        remedy = "Learned from nothing; if it is one of the base's under another name, join them with --map THEIRS=OURS"
        found.append(Finding("base-labels", "note", "", None, what, remedy))
    return found
