"""Predictions that belong to a run: only the cases that it held out were predicted, and only these are evaluated."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from lnsegfm.errors import DataError
from lnsegfm.evaluation.paired_masks import paired_names
from lnsegfm.messages import counted, listed
from lnsegfm.storage import read_json

_RECIPE, _PREDICTIONS = "recipe.json", "predictions"  # of a run's folder


def cases_held_out(predictions: Path) -> tuple[Path, frozenset[str]] | None:
    """The run in whose folder predictions lie, and the names of its held-out cases; None of any other folder.

    Args:
        predictions: ``RUN/predictions``, or a folder in it.
    """
    place = predictions.resolve()
    for folder in (place, *place.parents[:1]):
        recipe = folder.parent / _RECIPE
        if folder.name != _PREDICTIONS or not recipe.is_file():
            continue
        try:
            held_out = read_json(recipe).get("held_out")
        except (DataError, AttributeError):  # not a run's
            return None
        if isinstance(held_out, list) and held_out:
            return folder.parent, frozenset(map(str, held_out))
    return None


def not_held_out(predictions: Path, references: Collection[str], predicted: Collection[str]) -> tuple[str, ...]:
    """References without a prediction that the predictions' run did not hold out; none where they are of no run.

    Args:
        predictions: The folder of the predicted masks.
        references: Names of the references.
        predicted: Those of them that have a prediction.
    """
    run = cases_held_out(predictions)
    if run is None or not predicted:
        return ()
    held_out = set(paired_names(run[1], references))
    return tuple(sorted(name for name in references if name not in held_out and name not in predicted))


def held_out_line(predictions: Path, evaluated: int, left_out: Collection[str]) -> str:
    """What is left out, in a line."""
    rest = f"{counted(len(left_out), 'other case')} ({listed(sorted(left_out))})"
    return f"{predictions} belongs to a run, which held out {counted(evaluated, 'case')}: it did not predict {rest}"
