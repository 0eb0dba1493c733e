"""Labels that some cases lack and most have: perhaps nobody annotated them there."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from lnsegfm.datasets.labels import node_labels

_LESIONS = (
    "tumor",
    "tumour",
    "lesion",
    "gtv",
    "ctv",
    "ptv",
    "metasta",
    "mets",
    "cancer",
    "carcinoma",
    "nodule",
    "cyst",
)
FEWEST = 2
"""Cases that have the label, at least, before its absence from another one is doubted."""


def may_be_absent(label: str) -> bool:
    """Whether a label is one of findings, such as nodes or tumours, that a patient need not have."""
    words = [word for word in re.split(r"[\W_\d]+|(?<=[a-z])(?=[A-Z])", label) if word]
    return bool(node_labels([label])) or any(word.lower().startswith(_LESIONS) for word in words)


def doubtful_labels(
    labels: Iterable[str],
    holding: Mapping[str, Collection[str]],
    *,
    unlabelled: Mapping[str, Collection[str]] | None = None,
    absent: Collection[str] = (),
    predicted: Mapping[str, Collection[str]] | None = None,
    others: Mapping[str, Collection[str]] | None = None,
) -> dict[str, tuple[str, ...]]:
    """The cases without a label that most of the others have, by label; labels of nodes and tumours are left out.

    Args:
        labels: The labels to judge.
        holding: The labels that each case's reference holds, by case.
        unlabelled: Labels that are known not to be annotated in a case, of ``others`` too.
        absent: Labels that are known to be absent where they are empty.
        predicted: Labels that a model predicts in each case: what it predicts in most of the cases that lack it is in
            doubt however few have it.
        others: Labels that further cases hold, by case: they count among those that have a label or lack it, and are
            not among the cases that are given.
    """
    every, found = {**(others or {}), **holding}, {}
    for label in labels:
        annotated = [case for case in every if label not in (unlabelled or {}).get(case, ())]
        having = sum(label in every[case] for case in annotated)
        lacking = tuple(case for case in annotated if case in holding and label not in holding[case])
        seen = sum(label in predicted[case] for case in lacking) if predicted is not None else 0
        likely = 2 * having > len(annotated) or 2 * seen > len(lacking)
        if lacking and having >= FEWEST and likely and label not in absent and not may_be_absent(label):
            found[label] = lacking
    return found
