"""Coarse-to-fine prediction: at half resolution everywhere, then at full resolution in the tiles around foreground.

Around foreground of the coarse pass the result is that of full resolution everywhere: every tile that reaches into its
surroundings is evaluated, so the logits are the same. Elsewhere they are those of the coarse pass, which are
background. What the coarse pass misses stays missed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own documentation calls it so
from torch import Tensor

from lnsegfm.inference.sliding_window import pad
from lnsegfm.inference.speed_presets import CoarsePass
from lnsegfm.inference.tile_positions import TilePosition, tile_positions


@torch.inference_mode()
def coarse_to_fine(
    window: Callable[..., Tensor],
    volume: Tensor,
    patch: Sequence[int],
    coarse: CoarsePass,
    *,
    step: float = 0.5,
    regions: bool = False,
) -> Tensor:
    """The logits of a volume, from tiles near what a coarse look finds.

    Args:
        window: `lnsegfm.inference.sliding_window.sliding_window` of a network, with all that is the same in both looks.
        volume: (channels, z, y, x), normalised.
        patch: Voxels of a tile (z, y, x).
        coarse: How to look first; without mirroring.
        step: Distance of tiles in the second look, as a share of the patch.
        regions: Channels are regions, each found where its logit is above 0; else classes, background first.

    Returns:
        (classes, z, y, x) as ``window`` gives them, on the CPU.
    """
    whole, inner = pad(volume, patch)
    shape = whole.shape[1:]
    half = F.interpolate(whole[None], size=[max(1, n // 2) for n in shape], mode="trilinear")[0]
    rough = window(half, patch, step=coarse.step, mirror_axes=(), watch=None).cpu()
    found = (rough > 0).any(0) if regions or len(rough) == 1 else rough.argmax(0) > 0
    near = tiles_near(found, shape, patch, step=step, margin=coarse.margin)
    fine = window(whole, patch, only=near).cpu() if near else torch.zeros((len(rough), *shape))
    elsewhere = torch.ones(shape, dtype=torch.bool)
    for at in near:
        elsewhere[at] = False
    for logits, first in zip(fine, rough, strict=True):
        logits[elsewhere] = F.interpolate(first[None, None], size=shape, mode="trilinear")[0, 0][elsewhere]
    return fine[(slice(None), *inner)]


def tiles_near(
    found: Tensor, shape: Sequence[int], patch: Sequence[int], *, step: float = 0.5, margin: float = 0.125
) -> list[TilePosition]:
    """The tiles of a volume that come near something found.

    Args:
        found: Where, on a grid of about half the size (z, y, x).
        shape: Of the volume.
        patch: Of a tile.
        step: Distance of tiles as a share of the patch.
        margin: How near: a share of the patch.
    """
    ratio = [small / large for small, large in zip(found.shape, shape, strict=True)]

    def reach(at: TilePosition) -> TilePosition:
        """The tile and its margin on the coarse grid."""
        low = [(one.start - margin * size) * r for one, size, r in zip(at, patch, ratio, strict=True)]
        high = [(one.stop + margin * size) * r for one, size, r in zip(at, patch, ratio, strict=True)]
        first, second, third = (slice(max(0, int(a)), int(b) + 1) for a, b in zip(low, high, strict=True))
        return first, second, third

    return [at for at in tile_positions(shape, patch, step) if bool(found[reach(at)].any())]
