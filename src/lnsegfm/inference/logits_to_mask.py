"""From logits on the network's grid to the mask on the scan's own grid, slab by slab.

Equal to nnU-Net 2.8.1's ``convert_predicted_logits_to_segmentation_with_correct_shape`` for its default resampling of
order 1: interpolate, take the largest class, put it into the crop's box, undo the transposition. Logits never lie at
the scan's size as a whole; for two classes only their difference is interpolated, since interpolation is linear.

nnU-Net rounds interpolated logits to half precision before it compares them, so that classes closer than that tie
and the lower one wins. Here they are compared in double precision: masks differ in such voxels and in no others, and
with ``rounded=True`` in none but where both roundings lie within 1e-15 of a tie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own documentation calls it so
from torch import Tensor

from lnsegfm.errors import ConfigError, DataError
from lnsegfm.transforms.resampling.anisotropy import separate_axis
from lnsegfm.transforms.resampling.axis_weights import linear_neighbours, nearest_slices

LIMIT_BYTES = 64 * 2**20
"""Memory of a slab's temporary tensors; larger slabs are no faster."""
_DEFAULT = {"is_seg": False, "order": 1, "order_z": 0}
_TEMPORARIES = 4  # numbers a voxel of a slab: the value, the best so far, and torch's own while it interpolates


@dataclass(frozen=True)
class InversePreprocessing:
    """How a volume on the network's grid comes to lie on the scan's grid.

    Axes are in the network's order unless said otherwise.

    Args:
        shape: Voxels of the cropped scan, to which logits are interpolated.
        whole: Voxels of the whole scan.
        box: First and one past the last voxel of the crop along each axis; parts beyond the scan are dropped.
        nearest: The axis that is taken by nearest neighbour; None if all are interpolated.
        backward: The network's axis that becomes axis 0, 1, 2 of the scan's array.

    Raises:
        DataError: Numbers that fit no scan.
    """

    shape: tuple[int, int, int]
    whole: tuple[int, int, int]
    box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    nearest: int | None = None
    backward: tuple[int, int, int] = (0, 1, 2)

    def __post_init__(self) -> None:
        if sorted(self.backward) != [0, 1, 2]:
            raise DataError(f"Transposition {self.backward}: it must name each axis once. Use an order of 0, 1, 2.")
        if len(self.shape) != 3 or min(self.shape) < 1 or [b - a for a, b in self.box] != list(self.shape):
            raise DataError(f"Crop {self.box}: a volume of {self.shape} does not fill it. Give the box of the crop.")

    @classmethod
    def read(cls, plans: Any, configuration: Any, properties: Mapping[str, Any]) -> InversePreprocessing:
        """The inverse preprocessing of a case.

        Args:
            plans: nnU-Net's ``PlansManager``.
            configuration: Its ``ConfigurationManager``.
            properties: What nnU-Net's reader and preprocessor noted of the case.

        Raises:
            ConfigError: The plan resamples logits by another rule than nnU-Net's default; see ``is_default``.
        """
        settings = configuration.configuration
        if not is_default(settings):
            raise ConfigError(
                f"Resampling {settings['resampling_fn_probabilities']}: slabs interpolate by nnU-Net's default rule "
                "only. Export with nnU-Net's own function."
            )
        here = [properties["spacing"][axis] for axis in plans.transpose_forward]
        network = list(configuration.spacing)
        network = network if len(network) == len(here) else [here[0], *network]
        force = settings["resampling_fn_probabilities_kwargs"].get("force_separate_z")
        return cls(
            shape=_three(properties["shape_after_cropping_and_before_resampling"]),
            whole=_three(properties["shape_before_cropping"]),
            box=tuple((int(a), int(b)) for a, b in properties["bbox_used_for_cropping"]),  # type: ignore[arg-type]
            nearest=separate_axis(network, here, force),
            backward=_three(plans.transpose_backward),
        )


def is_default(settings: Mapping[str, Any]) -> bool:
    """Whether a plan's configuration interpolates logits by nnU-Net's default: order 1, nearest along a coarse axis."""
    given = settings.get("resampling_fn_probabilities_kwargs", {})
    return settings.get("resampling_fn_probabilities") == "resample_data_or_seg_to_shape" and all(
        given.get(name) == value for name, value in _DEFAULT.items()
    )


@torch.inference_mode()
def mask_from_logits(
    logits: Tensor, inverse: InversePreprocessing, *, limit_bytes: int = LIMIT_BYTES, rounded: bool = False
) -> np.ndarray:
    """The mask of a scan.

    Args:
        logits: (classes, z, y, x) on the network's grid, any floating type; or (1, z, y, x), the logit of class 1
            less that of class 0.
        inverse: To the scan's grid.
        limit_bytes: Memory of temporary tensors besides logits and mask; a slab has at least one slice.
        rounded: Interpolate in double precision and round to the logits' own type before they are compared, as
            nnU-Net does; else in single precision.

    Returns:
        The class of each voxel, (z, y, x) of the scan, uint8; uint16 from 255 labels on. Of equal logits the lower
        class wins.
    """
    _require_logits(logits)
    classes = len(logits)
    kind = np.uint8 if classes <= 255 else np.uint16
    mask = np.zeros([inverse.whole[axis] for axis in inverse.backward], dtype=kind)
    target = mask.transpose(np.argsort(inverse.backward))
    round_to = logits.dtype if rounded and tuple(logits.shape[1:]) != inverse.shape else None
    paired = classes == 1 or (classes == 2 and round_to is None)
    choose = _sign if paired else _running_argmax
    for slab, place in _slabs(logits, inverse, limit_bytes, exact=round_to is not None):
        _put(target, inverse, place, choose(slab, classes, round_to).to("cpu").numpy())
    return mask


@torch.inference_mode()
def probabilities_from_logits(
    logits: Tensor, inverse: InversePreprocessing, *, out: np.ndarray | None = None, limit_bytes: int = LIMIT_BYTES
) -> np.ndarray:
    """The probability of each class, as nnU-Net's ``--save_probabilities`` has them.

    Args:
        logits: As in ``mask_of``; from a difference the probabilities of two classes come.
        inverse: To the scan's grid.
        out: Where to put them: an array of the right shape and any floating type, which may be mapped from a file.
        limit_bytes: Memory of temporary tensors besides logits and result.

    Returns:
        (classes, z, y, x) of the scan, float32 or ``out``; outside the crop background has 1.
    """
    _require_logits(logits)
    classes = max(2, len(logits))
    shape = (classes, *(inverse.whole[axis] for axis in inverse.backward))
    probabilities = np.empty(shape, dtype=np.float32) if out is None else out
    if probabilities.shape != shape:
        raise DataError(
            f"Array of shape {probabilities.shape}: the probabilities have {shape}. Give an array of that shape."
        )
    probabilities[0], probabilities[1:] = 1, 0
    for slab, place in _slabs(logits, inverse, limit_bytes // classes, exact=True):
        each = [slab(number).float() for number in range(len(logits))]
        each = each if len(each) > 1 else [torch.zeros_like(each[0]), *each]
        shares = torch.stack(each).softmax(0).cpu().numpy()
        for number in range(classes):
            _put(probabilities[number].transpose(np.argsort(inverse.backward)), inverse, place, shares[number])
    return probabilities


Slab = Callable[..., Tensor]
"""Gives the logits of a class (or of one less another) interpolated to a slab (thickness, y, x)."""


def _slabs(
    logits: Tensor, inverse: InversePreprocessing, limit_bytes: int, *, exact: bool
) -> Iterator[tuple[Slab, slice]]:
    """Each slab of the cropped scan: what interpolates to it (``exact`` in doubles), and its place along axis 0."""
    depth, height, width = inverse.shape
    kind = torch.float64 if exact and logits.device.type != "mps" else torch.promote_types(torch.float32, logits.dtype)
    thickness = max(1, int(limit_bytes // (height * width * kind.itemsize * _TEMPORARIES)))
    pairs = linear_neighbours(logits.shape[1], depth)
    below = nearest_slices(logits.shape[1], depth) if inverse.nearest == 0 else pairs.low
    above = below if inverse.nearest == 0 else pairs.high
    share = torch.from_numpy(pairs.of_high).to(kind).to(logits.device)
    across = inverse.nearest or 0
    rows = _index(nearest_slices(logits.shape[1 + across], inverse.shape[across]), logits) if across else None

    def interpolate(place: slice, number: int, less: int | None = None) -> Tensor:
        first, last = int(below[place][0]), int(above[place][-1]) + 1
        part = logits[number, first:last].to(kind)
        if less is not None:
            part = part - logits[less, first:last].to(kind)
        if rows is not None:
            part = part.index_select(across, rows)
        near = part.index_select(0, _index(below[place] - first, logits))
        if inverse.nearest != 0 and logits.shape[1] != depth:
            near = near.lerp_(part.index_select(0, _index(above[place] - first, logits)), share[place, None, None])
        if near.shape[1:] == inverse.shape[1:]:
            return near
        # the half-voxel convention and edges of `axis_weights`, whose matrix products take several times as long
        return F.interpolate(near[:, None], size=(height, width), mode="bilinear", align_corners=False)[:, 0]

    for start in range(0, depth, thickness):
        place = slice(start, min(start + thickness, depth))
        yield (lambda number, less=None, place=place: interpolate(place, number, less)), place


def _index(places: np.ndarray, beside: Tensor) -> Tensor:
    return torch.from_numpy(places).to(beside.device)


def _sign(slab: Slab, classes: int, _round_to: torch.dtype | None) -> Tensor:
    return slab(0) > 0 if classes == 1 else slab(1, 0) > 0


def _running_argmax(slab: Slab, classes: int, round_to: torch.dtype | None) -> Tensor:
    best: Tensor | None = None
    for number in range(classes):
        value = slab(number)
        value = value if round_to is None else value.to(round_to)
        if best is None:
            best, label = value, torch.zeros(value.shape, dtype=torch.int32 if classes > 255 else torch.uint8)
            label = label.to(value.device)
            continue
        label.masked_fill_(value > best, number)
        torch.maximum(best, value, out=best)
    return label


def _put(target: np.ndarray, inverse: InversePreprocessing, place: slice, part: np.ndarray) -> None:
    """Write a slab into the whole scan (network's axes); what lies beyond the scan is dropped."""
    box = ((inverse.box[0][0] + place.start, inverse.box[0][0] + place.stop), *inverse.box[1:])
    inside = [(max(0, a), min(n, b)) for (a, b), n in zip(box, target.shape, strict=True)]
    if all(a < b for a, b in inside):
        source = tuple(slice(a - c[0], b - c[0]) for (a, b), c in zip(inside, box, strict=True))
        target[tuple(slice(a, b) for a, b in inside)] = part[source]


def _require_logits(logits: Tensor) -> None:
    if logits.ndim != 4 or min(logits.shape) < 1 or not logits.is_floating_point():
        raise DataError(f"Logits {tuple(logits.shape)} {logits.dtype}: they must be (classes, z, y, x) numbers.")


def _three(values: Sequence[int]) -> tuple[int, int, int]:
    first, second, third = (int(value) for value in values)
    return first, second, third
