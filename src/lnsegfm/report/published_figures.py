"""What is published for a kind of structure, with its source; a structure without a source has no entry."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedDice:
    """Dice that methods reached on a public benchmark.

    Args:
        structure: What was segmented.
        low: The lowest figure cited.
        high: The highest figure cited.
        statistic: What the figures are over the benchmark's scans, in words.
        source: Where they stand.
    """

    structure: str
    low: float
    high: float
    statistic: str
    source: str


NODES = PublishedDice(
    "lymph nodes of the mediastinum",
    0.61,
    0.71,
    "medians of methods trained on many partially and on further fully annotated scans",
    "LNQ 2023, Dorent et al., MELBA 2025:001",
)
LUNG = PublishedDice(
    "lungs", 0.97, 0.98, "means of a benchmark", "Ma et al., Medical Physics 48, 2021, doi 10.1002/mp.14676"
)


def published_dice(label: str, *, node: bool = False) -> PublishedDice | None:
    """What is published for a label of this name; None where the table has nothing.

    Args:
        label: Its name in the data.
        node: It is a label of lymph nodes.
    """
    if node:
        return NODES
    words = set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label).lower()))
    others = words - {"lung", "lungs", "left", "right", "l", "r", "lt", "rt", "both"}
    return LUNG if words & {"lung", "lungs"} and not others else None
