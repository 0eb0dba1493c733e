"""The references of a DICOM tree in the words of the doctor: what a conversion takes, and what it fails at."""

from __future__ import annotations

from collections.abc import Iterator

from lnsegfm.datasets.doctor.finding import Finding, Severity, from_sentence
from lnsegfm.imaging.dicom.reference_choice import DRAWN_TWICE
from lnsegfm.imaging.dicom.series_choice import SeriesChoice
from lnsegfm.imaging.dicom.tree_references import SeriesReference, TreeReferences, sentence_about

_LOOK = "Nothing if that is as it should be"


def reference_findings(references: TreeReferences, choice: SeriesChoice) -> Iterator[Finding]:
    """What is wrong or odd about who drew what on which series.

    Errors are what a conversion fails at: a series whose structures are refused, structures of a series that cannot be
    used, and a tree with structures of which no series gets a reference. The rest is reported as notes and warnings.

    Args:
        references: Those of all series of the tree.
        choice: Which of the series are taken.
    """
    index = references.tree.index
    pairs = zip(index.series, references.on, strict=True)
    on = [(series, reference) for series, reference in pairs if choice.takes(series)]
    nothing = bool(index.structures or index.segmentations) and all(reference.why for _, reference in on)
    on_unusable = {id(annotation) for annotation in references.on_unusable}
    for annotation, why in references.without_series:
        noun = "structure set" if annotation.kind == "RTSTRUCT" else "segmentation"
        named = f" ({', '.join(annotation.series_uids)})" if annotation.series_uids else ""
        severity: Severity = "error" if nothing or id(annotation) in on_unusable else "warning"
        what = f"a {noun} that belongs to no usable series: {why}{named}"
        yield Finding("no-series", severity, "", annotation.path, what, _remedy(why))
    for series, reference in on:
        yield from _of_series(series.name, reference, nothing)


def _remedy(why: str) -> str:
    if "is not measured on a CT" in why:
        return "Add structures that were drawn on the CT, or leave it out"
    if "is here and cannot be used" in why:
        return "Repair that series, or have it resampled where its line says so"
    return "Add the series it was drawn on"


def _of_series(case: str, reference: SeriesReference, nothing: bool) -> Iterator[Finding]:
    failed: Severity = "error" if reference.fault else "note"
    for annotation, pairing in (*reference.refused, *reference.strays):
        kind = "structure" if annotation.kind == "RTSTRUCT" else "segmentation"
        sentence = f"{sentence_about(annotation, pairing)}."
        yield from_sentence(kind, failed, case, annotation.path, sentence, "" if reference.fault else _LOOK)
    for each in reference.choice.candidates:
        if each.fault:
            sentence = f"{each.structure.name}: {each.why}."
            yield from_sentence(
                "mirrored", "error" if reference.fault else "warning", case, each.annotation.path, sentence
            )
    for note in reference.notes:
        told = any(sentence_about(*stray) in note for stray in (*reference.refused, *reference.strays))
        if not told:
            severity: Severity = "warning" if DRAWN_TWICE in note else "note"
            yield from_sentence("reference", severity, case, None, f"{note}.", _LOOK)
    automatic = any(not each.author.person and not each.taken for each in reference.choice.candidates)
    if reference.why and not reference.fault and (automatic or reference.choice.candidates):
        remedy = "Nothing, or have a person correct them" if automatic else "Nothing if it is not to be trained on"
        yield Finding("no-reference", "error" if nothing else "note", case, None, reference.why, remedy)
