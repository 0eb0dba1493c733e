"""The postprocessing of a model that is there: chosen on predictions of it, or said by hand, and stored with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.evaluation.doubtful_references import KnownAbsence, require_labels
from lnsegfm.evaluation.flags import TRAINED_ON, read_flags
from lnsegfm.evaluation.judged_masks import JudgedLabels, doubtful_apart
from lnsegfm.evaluation.paired_masks import by_reference
from lnsegfm.evaluation.postprocessing import LargestComponent, MaskRule, Postprocessing, SmallestVolume
from lnsegfm.evaluation.postprocessing_choice import PostprocessingChoice, choose_postprocessing
from lnsegfm.evaluation.references import labels_to_score, masks_in, references_in, subjects_in, unlabelled_in
from lnsegfm.models.model_folder import Model, read_model
from lnsegfm.models.postprocessing_files import write_postprocessing
from lnsegfm.progress import Progress, Silent
from lnsegfm.registry.home import BUILT_IN, CARD
from lnsegfm.registry.stored_model import hash_files, stored_in

ALL = "all"
"""In the place of a label: all foreground taken together."""


@dataclass(frozen=True)
class StoredPostprocessing:
    """What a model's postprocessing is now.

    Args:
        folder: The model's.
        postprocessing: The rules.
        lines: Each in words.
        choice: By what it was chosen; None where it was said by hand.
        left_out: Cases that trained the model, by which nothing is chosen.
    """

    folder: Path
    postprocessing: Postprocessing
    lines: tuple[str, ...]
    choice: PostprocessingChoice | None = None
    left_out: tuple[str, ...] = ()


def choose_for_model(
    place: Path,
    predictions: Path,
    references: Path,
    *,
    labels: LabelMap | None = None,
    absent: Sequence[str] = (),
    progress: Progress | None = None,
) -> StoredPostprocessing:
    """Choose a model's postprocessing on its predictions of scans that did not train it, and store it.

    Args:
        place: The model's folder, a run's, or the name of an imported model.
        predictions: Its masks, made without postprocessing.
        references: Reference masks, or a dataset folder.
        labels: What the references' labels are called, where nothing there says it.
        absent: Labels that are truly absent where a reference lacks them, though most hold them.
        progress: Reported to after each case.

    Raises:
        DataError: Masks that cannot be used.
        ModelError: The model cannot be read.
        ConfigError: A model of the package, or a label that the references do not have.
    """
    progress = progress or Silent()
    model = read_model(place)
    named = labels_to_score(predictions, references, labels)
    known_absence = KnownAbsence(require_labels(absent, named))
    judged = JudgedLabels(model.mask_labels, named)
    referred = references_in(references, named)
    predicted = by_reference(masks_in(predictions), referred)
    if not predicted:
        raise DataError(f"{predictions}: none of its masks has a reference in {references}. Name them alike.")
    flags = read_flags(predictions)
    known = tuple(name for name in predicted if any(flag.kind == TRAINED_ON for flag in flags.get(name, ())))
    subjects, unlabelled = subjects_in(references, None), unlabelled_in(references, named)
    cases = []
    for done, name in enumerate(sorted(set(predicted) - set(known))):
        progress.advance(done, len(predicted), name)
        subject, nobody = subjects.get(name, ""), unlabelled.get(name, frozenset())
        cases.append(judged.case(name, predicted[name], referred[name], subject=subject, unlabelled=nobody))
    progress.advance(len(predicted), len(predicted))
    choice = choose_postprocessing(doubtful_apart(cases, judged.labels, known_absence), judged.labels, crossfit=True)
    return _stored(model, choice.chosen, choice, known)


def set_for_model(
    place: Path, largest: Sequence[str] = (), smallest: Sequence[tuple[str, float]] = ()
) -> StoredPostprocessing:
    """Store rules with a model as they are said; none removes those that it has.

    Args:
        place: The model's folder, a run's, or the name of an imported model.
        largest: Labels of which the largest component is kept; ``all`` is all foreground together.
        smallest: Labels, or ``all`` for each of them, and the volume in mm3 below which components are removed.

    Raises:
        ConfigError: A label that the model does not have, a volume that cannot be, or a model of the package.
        ModelError: The model cannot be read.
    """
    model = read_model(place)
    covered = model.labels.covered
    for name in (*largest, *(label for label, _ in smallest)):
        if name != ALL and name not in covered:
            raise ConfigError(f"Label {name}: the model has none of that name. Use {', '.join(covered)} or {ALL}.")
    every = tuple(sorted({value for values in covered.values() for value in values}))
    rules: list[MaskRule] = [LargestComponent(every if name == ALL else covered[name]) for name in largest]
    for label, mm3 in smallest:
        rules += [SmallestVolume(covered[name], mm3) for name in (covered if label == ALL else (label,))]
    return _stored(model, Postprocessing(tuple(rules)), None, ())


def _stored(
    model: Model, rules: Postprocessing, choice: PostprocessingChoice | None, left_out: tuple[str, ...]
) -> StoredPostprocessing:
    if model.folder.parent == BUILT_IN:
        raise ConfigError(f"Model {model.folder.name}: it is part of the package and stays as it is. Adapt it first.")
    figures = {}
    if choice is not None:
        means = choice.scores.means().items()
        dice = {name: {"before": before, "after": after, "cases": n} for name, (before, after, n) in means}
        figures = {"scans": len(choice.cases), "crossfitted": choice.scores.crossfitted, "dice": dice}
    write_postprocessing(model.folder, rules, figures)
    stored = stored_in(model.folder) if (model.folder / CARD).is_file() else None
    if stored is not None:
        stored.model_copy(update={"files": hash_files(model.folder)}).write(model.folder)
    return StoredPostprocessing(model.folder, rules, rules.lines(model.labels.covered), choice, left_out)
