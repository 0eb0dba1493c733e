"""Along which axes a model is mirrored: in training, and where prediction averages over mirrored copies.

A network that was mirrored from side to side cannot tell a left parotid from a right one. Where labels name sides, the
left-right axis is therefore left out, in nnU-Net's own entry (``inference_allowed_mirroring_axes`` of the checkpoint),
or left and right labels change places with the flip, which stands in an entry of the plans that nnU-Net passes over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lnsegfm.datasets.sided_labels import (
    MIRROR_ALL,
    MIRROR_AUTO,
    MIRROR_NONE,
    MIRROR_SWAP,
    differs_in_more,
    lone_sides,
    side_pairs,
)
from lnsegfm.errors import ConfigError, ModelError
from lnsegfm.imaging.axis_code import require_axes
from lnsegfm.messages import listed
from lnsegfm.nnunet.plan_axes import axes_of_plans
from lnsegfm.transforms.mirror_swap import MirrorSwap

SWAP = "mirror_swap"
"""The entry of plans: ``{"axis": 2, "outputs": [[1, 2]]}``."""
ASSUMED_AXES = "LPS"
ALLOWED = "inference_allowed_mirroring_axes"
_ENDS = {"x": "LR", "y": "AP", "z": "IS"}


@dataclass(frozen=True)
class MirrorChoice:
    """What was settled.

    Args:
        axes: Array axes along which training mirrors without exchanging labels, and prediction may; None as nnU-Net
            writes it where it may not at all.
        swap: Labels that change places with a flip along the left-right axis; None where that is not done.
        words: What is done, as a line; "" where nothing is to be said.
    """

    axes: tuple[int, ...] | None
    swap: MirrorSwap | None = None
    words: str = ""

    def in_plans(self, plans: Mapping[str, Any]) -> dict[str, Any]:
        """Plans that hold the exchange of labels, if any."""
        kept = {key: value for key, value in plans.items() if key != SWAP}
        if self.swap is None:
            return kept
        return {**kept, SWAP: {"axis": self.swap.axis, "outputs": [list(pair) for pair in self.swap.pairs]}}


def patient_axis(plans: Mapping[str, Any], axis: str = "x") -> tuple[int, bool]:
    """Which axis of the network's arrays runs along an axis of the patient, and whether plans tell it.

    Where they do not, the scans are taken as axial (`ASSUMED_AXES`). ``transpose_forward`` of the plans counts.

    Args:
        plans: nnU-Net's.
        axis: ``x`` from side to side, ``y`` from front to back, ``z`` from foot to head.
    """
    code = axes_of_plans(plans)[0]
    letters = require_axes(code or ASSUMED_AXES, "axes")
    stored = 2 - next(number for number, letter in enumerate(letters) if letter in _ENDS[axis])
    order = [int(n) for n in plans.get("transpose_forward") or (0, 1, 2)]
    return order.index(stored), code is not None


def swap_of_plans(plans: Mapping[str, Any]) -> MirrorSwap | None:
    """The exchange of labels that a model was trained with.

    Raises:
        ModelError: The entry of the plans is none.
    """
    entry = plans.get(SWAP)
    if entry is None:
        return None
    try:
        axis, pairs = entry["axis"], tuple((left, right) for left, right in entry["outputs"])
        numbers = [n for pair in pairs for n in pair]
        if axis not in (0, 1, 2) or not all(type(n) is int and n >= 0 for n in (axis, *numbers)):
            raise ValueError
        if len(set(numbers)) != len(numbers):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise ModelError(f"plans.json: {SWAP} {entry!r}: not an axis and pairs of outputs. Copy it again.") from None
    return MirrorSwap(axis, pairs)


def settle_mirroring(
    option: str, allowed: Sequence[int] | None, plans: Mapping[str, Any], outputs: Sequence[str]
) -> MirrorChoice:
    """Along which axes to mirror.

    Args:
        option: ``auto``: along ``allowed``, less left-right where a label names a side; ``all``: along ``allowed``;
            ``none``; ``swap``: left and right labels change places with the flip; or axes of the patient (``y,z``).
        allowed: Array axes of the base, or of nnU-Net's default.
        plans: Of the model to be trained.
        outputs: Names of its outputs in their order: background and labels, or regions.

    Raises:
        ConfigError: ``swap`` for labels that have no partner.
    """
    pairs, lone = side_pairs(outputs), lone_sides(outputs)
    sided = [name for pair in pairs for name in pair] + lone
    (x, known) = patient_axis(plans)
    assumed = "" if known else f" (plans do not tell their axes: taken as {ASSUMED_AXES})"
    along = f"left-right, array axis {x}{assumed}"
    rest = tuple(axis for axis in allowed or () if axis != x) or None  # nnU-Net fails at an empty tuple
    if option == MIRROR_SWAP:
        if lone or not pairs:
            why = f"{listed(lone)} has no partner" if lone else "no label has a partner on the other side"
            raise ConfigError(f"--mirror {MIRROR_SWAP}: {why} among the labels. Use --mirror {MIRROR_AUTO}.")
        numbers = tuple((outputs.index(left), outputs.index(right)) for left, right in pairs)
        words = (
            f"Mirroring: labels {_paired(pairs)} change places when {along}, is mirrored; {ALLOWED} {list(rest or ())} "
            "leaves it out, because stock nnU-Net cannot exchange them at prediction"
        )
        if unlike := [name for pair in pairs for name in pair if differs_in_more(name)]:
            words += f"; {listed(unlike)} are no mirror images of each other: --mirror auto suits them better"
        return MirrorChoice(rest, MirrorSwap(x, numbers), words)
    if option == MIRROR_AUTO:
        if not sided or x not in (allowed or ()):
            return MirrorChoice(None if allowed is None else tuple(allowed), None, _kept(allowed, x, plans, sided))
        said = f"labels name sides ({_paired(pairs) if pairs else listed(lone)})"
        return MirrorChoice(rest, None, f"Mirroring: {said}, so not along {along}; {ALLOWED} {list(rest or ())}")
    if option == MIRROR_ALL:
        axes = None if allowed is None else tuple(allowed)
    elif option == MIRROR_NONE:
        axes = None
    else:
        axes = tuple(sorted(patient_axis(plans, name)[0] for name in option.split(",")))
    confused = f"; labels name sides ({listed(sided)}) and are not told apart along {along}" if sided else ""
    confused = confused if x in (axes or ()) else ""
    return MirrorChoice(axes, None, f"Mirroring: {ALLOWED} {list(axes or ())} by --mirror {option}{confused}")


def _kept(allowed: Sequence[int] | None, x: int, plans: Mapping[str, Any], sided: Sequence[str]) -> str:
    """What is to be said where a base is not mirrored from side to side, and stays so."""
    if SWAP in plans and sided:
        return (
            "Mirroring: the base's labels of sides change places when left-right is mirrored, and no longer do; "
            f"{ALLOWED} {list(allowed or ())}. --mirror {MIRROR_SWAP} keeps it"
        )
    if sided or not allowed or x in allowed:
        return ""
    return (
        f"Mirroring: the base is not mirrored along left-right, array axis {x}, and stays so though the labels name no "
        f"sides; {ALLOWED} {list(allowed)}. --mirror x,y,z mirrors along it"
    )


def mirrored_sides(plans: Mapping[str, Any], allowed: Sequence[int] | None, labels: Sequence[str]) -> str:
    """A line where a model was mirrored from side to side although its labels name sides of like structures; "" else.

    Args:
        plans: Its plans.
        allowed: Array axes along which its predictions may be mirrored.
        labels: Names of its labels.
    """
    sided = [name for pair in side_pairs(labels) for name in pair] + lone_sides(labels)
    sided = [name for name in sided if not differs_in_more(name)]
    axis, _ = patient_axis(plans)
    if not sided or axis not in (allowed or ()):
        return ""
    return (
        f"its labels name sides ({listed(sided)}) and it was mirrored along left-right (array axis {axis} of {ALLOWED} "
        f"{list(allowed or ())}), so it may take one side for the other"
    )


def _paired(pairs: Sequence[tuple[str, str]]) -> str:
    return listed([f"{left}/{right}" for left, right in pairs])
