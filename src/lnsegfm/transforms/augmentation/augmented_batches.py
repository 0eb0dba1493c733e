"""Training batches from scans in memory: the random choices are drawn, then only the voxels needed are read.

What stands in a batch follows from (seed, iteration) on one kind of device, whoever makes it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lnsegfm.errors import ConfigError
from lnsegfm.transforms.augmentation.augmentation_parameters import (
    AugmentationSettings,
    SampleParameters,
    draw_batch_parameters,
)
from lnsegfm.transforms.augmentation.intensity_transforms import augment_intensities
from lnsegfm.transforms.augmentation.prepared_case import PreparedCase
from lnsegfm.transforms.augmentation.spatial_transforms import sample_patch


def augment_sample(
    shot: PreparedCase, parameters: SampleParameters, settings: AugmentationSettings
) -> tuple[Tensor, Tensor]:
    """Make one sample: image (C, z, y, x) in float32, labels (1, z, y, x) in int16, none below 0."""
    image, labels = sample_patch(shot.image, shot.labels, parameters, settings)
    augment_intensities(image, parameters, in_plane=settings.in_plane)
    if parameters.mirrored:
        image, labels = image.flip([axis - 3 for axis in parameters.mirrored]), labels.flip(parameters.mirrored)
    if settings.swap is not None and settings.swap.axis in parameters.mirrored and not settings.regions:
        labels = settings.swap.labels(labels)
    for channel in settings.masked:
        image[channel].masked_fill_(labels < 0, 0)
    return image, labels.clamp_(min=0)[None]


def as_regions(labels: Tensor, regions: Sequence[Sequence[int]]) -> Tensor:
    """Where each region is (B, regions, z, y, x), boolean, of labels (B, 1, z, y, x); regions may overlap."""
    covered = [torch.isin(labels, torch.tensor(region, device=labels.device)) for region in regions]
    return torch.cat(covered, 1)


def downsample_labels(labels: Tensor, scales: Sequence[Sequence[float]]) -> list[Tensor]:
    """Labels (..., z, y, x) at the resolutions of the network's outputs: of every few voxels the middle one."""
    return [_nearest(labels, [round(n * s) for n, s in zip(labels.shape[-3:], scale, strict=True)]) for scale in scales]


def _nearest(labels: Tensor, size: Sequence[int]) -> Tensor:
    for axis, (n, wanted) in enumerate(zip(labels.shape[-3:], size, strict=True), -3):
        if n != wanted:
            step = torch.tensor(
                n / wanted, dtype=torch.float32
            )  # torch's rounding of nearest neighbours, which is not that of `axis_weights`
            at = ((torch.arange(wanted) + 0.5) * step).long().clamp_(max=n - 1)
            labels = labels.index_select(axis, at.to(labels.device))
    return labels


class AugmentedBatches(Dataset[dict[str, Any]]):
    """Batch number i is drawn and augmented from (seed, i) alone, on the device where the scans lie.

    Args:
        shots: Scans, all on one device.
        settings: What is drawn from.
        size: Samples of a batch.
        scales: Resolutions of the network's outputs as shares of the patch's; None gives one target and no list.
        seed: Of the run.
        rank: Which of several processes that train together this is.
    """

    def __init__(
        self,
        shots: Sequence[PreparedCase],
        settings: AugmentationSettings,
        size: int,
        seed: int,
        *,
        scales: Sequence[Sequence[float]] | None = None,
        rank: int = 0,
    ) -> None:
        if not shots:
            raise ConfigError("Scans 0: nothing to train on. Give at least one labelled scan.")
        self._shots, self._settings, self._size = list(shots), settings, size
        self._seed, self._scales, self._rank = seed, scales, rank

    def __getitem__(self, iteration: int) -> dict[str, Any]:
        """Data (B, C, z, y, x), target (B, 1, z, y, x), a list where deep supervision is on, and what the cases are.

        Of regions the target has a channel each. ``keys`` are the cases' names, ``unlabelled`` the values of the labels
        that nobody annotated in them.
        """
        drawn = draw_batch_parameters(self._settings, self._shots, self._size, self._seed, iteration, self._rank)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # sums over several threads differ in the last bit
        try:
            with torch.no_grad():
                samples = [
                    augment_sample(self._shots[parameters.case], parameters, self._settings) for parameters in drawn
                ]
                data, labels = (torch.stack(parts) for parts in zip(*samples, strict=True))
                labels = self._regions(labels, drawn) if self._settings.regions else labels
                target = labels if self._scales is None else downsample_labels(labels, self._scales)
        finally:
            torch.set_num_threads(threads)
        shots = [self._shots[parameters.case] for parameters in drawn]
        about = {"keys": [shot.name for shot in shots], "unlabelled": [self._unlabelled(each) for each in drawn]}
        return {"data": data, "target": target, **about}

    def _regions(self, labels: Tensor, drawn: Sequence[SampleParameters]) -> Tensor:
        """The channels of regions; in a sample that is mirrored from side to side left and right are exchanged."""
        regions, swap = as_regions(labels, self._settings.regions), self._settings.swap
        if swap is not None:
            for number, parameters in enumerate(drawn):
                if swap.axis in parameters.mirrored:
                    regions[number] = swap.channels(regions[number], 0)
        return regions

    def _unlabelled(self, parameters: SampleParameters) -> tuple[int, ...]:
        values, swap = self._shots[parameters.case].unlabelled, self._settings.swap
        exchanged = swap is not None and swap.axis in parameters.mirrored
        return tuple(sorted(swap.outputs(values))) if swap is not None and exchanged else values

    def over(self, iterations: range, workers: int, *, pin: bool) -> Iterable[dict[str, Any]]:
        """Give the batches of these iterations in their order, made here or by worker processes.

        Raises:
            ConfigError: Workers for scans that lie on a GPU, which makes them itself.
        """
        if workers == 0:
            return (self[i] for i in iterations)
        if self._shots[0].image.device.type != "cpu":
            raise ConfigError(f"Workers {workers}: scans on a GPU are augmented there. Use 0 workers.")
        return DataLoader(
            self,
            batch_size=None,
            sampler=list(iterations),
            num_workers=workers,
            prefetch_factor=2,
            pin_memory=pin,
            worker_init_fn=_leave_interrupts_to_the_parent,
        )


def _leave_interrupts_to_the_parent(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
