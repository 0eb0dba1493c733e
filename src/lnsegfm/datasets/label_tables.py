"""The tables of labels in a ``dataset.json``, in the forms that nnU-Net, its version 1 and MSD write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lnsegfm.errors import DataError

BACKGROUND = "background"


def names_first(labels: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """A table of labels with names before values; one of MSD or nnU-Net version 1, ``{"1": "node"}``, is turned round.

    Raises:
        DataError: Numbers on both sides, or one name twice.
    """
    if not all(str(key).isdigit() and isinstance(name, str) for key, name in labels.items()):
        return labels
    if any(name.strip().isdigit() for name in labels.values()):
        raise DataError(
            f"Labels {dict(labels)!r:.80}: numbers on both sides, so which are the names is not clear. "
            'Write {"background": 0, "lymph_node": 1}.'
        )
    turned = {name: int(key) for key, name in labels.items()}
    if len(turned) < len(labels):
        raise DataError(f"Labels {dict(labels)!r:.80}: one name for two values. Give each value a name of its own.")
    return {BACKGROUND if value == 0 else name: value for name, value in turned.items()}


def plain_labels(labels: Any) -> Any:
    """The ``labels`` of a ``dataset.json`` with values as whole numbers where they are text or lists of one value.

    nnU-Net reads ``{"node": "1"}`` and ``{"node": [1]}`` as ``{"node": 1}``, and so does this, also ``1.0``, in regions
    too; a missing background is 0. Anything else stays as it is.
    """
    if not isinstance(labels, Mapping) or all(str(name).isdigit() for name in labels):
        return labels
    values = {name: _whole(value) for name, value in labels.items()}
    return values if BACKGROUND in values else {BACKGROUND: 0, **values}


def of_regions(labels: Mapping[str, Any], order: Any) -> tuple[dict[str, int], tuple[tuple[str, tuple[int, ...]], ...]]:
    """The value that each region has in a mask, and the regions.

    Args:
        labels: Name to value, or to the values of a region.
        order: ``regions_class_order``; None where there is none.

    Raises:
        DataError: An order of another length, or a region whose value nothing says.
    """
    regions = {name: tuple(v) if isinstance(v, list | tuple) else (v,) for name, v in labels.items()}
    if order is not None and (not isinstance(order, list | tuple) or len(order) != len(regions)):
        raise DataError(
            f"regions_class_order {order!r:.60}: it names a value for each of {', '.join(regions)}. Correct it."
        )
    if order is not None:
        return dict(zip(regions, map(_whole, order), strict=True)), tuple(regions.items())
    own = {}
    for name, values in regions.items():
        smaller = {v for other in regions.values() if set(other) < set(values) for v in other}
        rest = [value for value in values if value not in smaller]
        if len(rest) != 1:
            raise DataError(
                f"Label {name!r} {list(values)}: a region, and nothing says which value it has in a mask. "
                "Add regions_class_order to dataset.json."
            )
        own[name] = rest[0]
    return own, tuple(regions.items())


def _whole(value: Any) -> Any:
    while isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, list | tuple):
        return type(value)(map(_whole, value))
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return int(value) if isinstance(value, str) and value.strip().isdecimal() else value


def require_whole_number(name: Any, value: Any) -> None:
    """Refuse a label's value that is not a whole number.

    Raises:
        DataError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"Label {name!r} {value!r}: its value is not a whole number. Write it as 1, 2 or 3.")
