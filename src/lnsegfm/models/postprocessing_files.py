"""A model's postprocessing in its folder: ``postprocessing.json`` and, for stock nnU-Net, ``postprocessing.pkl``.

Both are as ``nnUNetv2_find_best_configuration`` writes them. The JSON lists every rule; the pickle those that nnU-Net
has a function for. A stranger's pickle is never executed: the JSON counts, and where it is missing names and numbers
alone are taken from the pickle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import ConfigError, ModelError
from lnsegfm.evaluation.postprocessing import LargestComponent, MaskRule, Postprocessing, SmallestVolume
from lnsegfm.nnunet.stock_postprocessing import FUNCTION, labels_or_regions, pickled, unpickled
from lnsegfm.storage import read_json, write_bytes, write_json

JSON, PICKLE = "postprocessing.json", "postprocessing.pkl"
FORMAT = "lnsegfm.postprocessing/1"


def read_postprocessing(folder: Path) -> Postprocessing:
    """The postprocessing of a model's folder, or of the cross-validation results of most folds in it; else none.

    Raises:
        ModelError: A rule that is not known, or a file that is not nnU-Net's.
        UnsafeFile: Only a pickle is there, and it names something else than nnU-Net's function.
    """
    crossvalidated = sorted(folder.glob("crossval_results_folds_*"), key=lambda place: (-len(place.name), place.name))
    for place in (folder, *crossvalidated):
        if (place / JSON).is_file():
            return _of_json(place / JSON)
        if (place / PICKLE).is_file():
            names, kwargs = unpickled(place / PICKLE)
            return _of_stock(place / PICKLE, names, kwargs)
    return Postprocessing()


def write_postprocessing(
    folder: Path, postprocessing: Postprocessing, figures: Mapping[str, Any] | None = None
) -> None:
    """Write a model's postprocessing into its folder, or remove it where there are no rules.

    Args:
        folder: The model's.
        postprocessing: The rules.
        figures: What they were chosen by.
    """
    if not postprocessing:
        for name in (PICKLE, JSON):
            (folder / name).unlink(missing_ok=True)
        return
    values = [rule.values for rule in postprocessing.in_stock]
    write_bytes(folder / PICKLE, pickled(values))
    write_json(folder / JSON, as_stock(postprocessing) | dict(figures or {}))


def postprocessing_lines(folder: Path) -> tuple[str, ...]:
    """The rules of a model's folder in words.

    Raises:
        ModelError: As `read_postprocessing`.
    """
    rules = read_postprocessing(folder)
    return rules.lines(LabelMap.of_model(read_json(folder / "dataset.json")).covered) if rules else ()


def as_stock(postprocessing: Postprocessing) -> dict[str, Any]:
    """The content of a ``postprocessing.json``: nnU-Net's entries, and under ``rules`` every rule."""
    values = [rule.values for rule in postprocessing.in_stock]
    return {
        "format": FORMAT,
        "postprocessing_fns": [FUNCTION] * len(values),
        "postprocessing_kwargs": [{"labels_or_regions": labels_or_regions(own)} for own in values],
        "rules": postprocessing.to_json(),
    }


def listed_rules(entries: Any, file: Path) -> Postprocessing:
    """Rules from what `Postprocessing.to_json` gives, as adapters and exports hold it.

    Raises:
        ModelError: Not such a list; the message names ``file``.
    """
    return rules_of({"format": FORMAT, "rules": entries}, file)


def rules_of(content: Any, file: Path) -> Postprocessing:
    """The rules that the content of a ``postprocessing.json`` lists, of this program's or of nnU-Net's form.

    Raises:
        ModelError: A rule that is not known, or not such a table.
    """
    try:
        if isinstance(content, Mapping) and content.get("format") == FORMAT:
            return Postprocessing(tuple(_rule(entry) for entry in content["rules"]))
        if "for_which_classes" in content:  # nnU-Net version 1
            return _of_version_1(content)
        names, kwargs = content["postprocessing_fns"], content["postprocessing_kwargs"]
    except (KeyError, TypeError, ValueError, ConfigError):
        raise ModelError(f"{file}: not a table of postprocessing rules. {_REMEDY}") from None
    return _of_stock(file, names, kwargs)


_REMEDY = "Copy it again, or remove the file to predict without."


def _of_json(file: Path) -> Postprocessing:
    return rules_of(read_json(file), file)


def _rule(entry: Mapping[str, Any]) -> MaskRule:
    values = _values(entry["values"])
    if entry["rule"] == LargestComponent.kind:
        return LargestComponent(values)
    if entry["rule"] == SmallestVolume.kind:
        return SmallestVolume(values, float(entry["mm3"]))
    raise ValueError(entry["rule"])


def _of_version_1(content: Mapping[str, Any]) -> Postprocessing:
    if any((content.get("min_valid_object_sizes") or {}).values()):
        raise ValueError("min_valid_object_sizes")
    return Postprocessing(tuple(LargestComponent(_values(each)) for each in content["for_which_classes"]))


def _of_stock(file: Path, names: Sequence[Any], kwargs: Sequence[Any]) -> Postprocessing:
    """Rules of nnU-Net's functions and their arguments.

    Raises:
        ModelError: Another function, or arguments that are not its.
    """
    rules = []
    try:
        for name, given in zip(names, kwargs, strict=True):
            if name != FUNCTION or set(given) - {"labels_or_regions", "background_label"}:
                raise ModelError(f"{file}: {name}: not one of nnU-Net's rules of postprocessing. {_REMEDY}")
            if given.get("background_label", 0) != 0:
                raise ModelError(f"{file}: background_label {given['background_label']}: masks have 0. {_REMEDY}")
            rules.append(LargestComponent(_values(given["labels_or_regions"])))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ModelError(f"{file}: not a table of postprocessing rules. {_REMEDY}") from None
    return Postprocessing(tuple(rules))


def _values(given: Any) -> tuple[int, ...]:
    """All values of a label, of a region, or of a list of either, which nnU-Net takes together."""
    if isinstance(given, bool) or not isinstance(given, int | list | tuple):
        raise TypeError(f"{given!r:.40} is no label")
    if isinstance(given, int):
        return (given,)
    return tuple(value for each in given for value in _values(each))
