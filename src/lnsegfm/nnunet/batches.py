"""Training patches from scans in memory, the same for (seed, iteration) whatever the number of workers."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from torch.utils.data import DataLoader, Dataset

from lnsegfm.datasets.dataset import Case
from lnsegfm.nnunet.engine import engine, seed_everything
from lnsegfm.progress import Progress, counted
from lnsegfm.storage import clear_partials, whole


class Untouched(np.ndarray):
    """An array whose parts are copies: nnU-Net's augmentation works in place on the patch that it cut out."""

    def __getitem__(self, key: Any) -> Any:
        return np.array(self.view(np.ndarray)[key])


class MemoryDataset:
    """Preprocessed scans, as nnU-Net's data loader asks for them; what is done to a patch never reaches its scan."""

    def __init__(self, cases: Mapping[str, tuple[np.ndarray, np.ndarray, dict[str, Any]]]) -> None:
        self._cases = {
            name: (data.view(Untouched), labels.view(Untouched), properties)
            for name, (data, labels, properties) in cases.items()
        }
        self.identifiers = sorted(cases)

    def load_case(self, identifier: str) -> tuple[np.ndarray, np.ndarray, None, dict[str, Any]]:
        """Image (C, z, y, x), labels (1, z, y, x), no earlier stage, properties."""
        data, labels, properties = self._cases[identifier]
        return data, labels, None, properties


def preprocess(
    cases: Sequence[Case],
    plans: Any,
    configuration: Any,
    dataset_json: dict[str, Any],
    progress: Progress,
    folder: Path | None = None,
) -> MemoryDataset:
    """Prepare labelled scans as nnU-Net does, in this process.

    Args:
        cases: Scans with references.
        plans: nnU-Net's ``PlansManager``.
        configuration: nnU-Net's ``ConfigurationManager``.
        dataset_json: The data set's description.
        progress: Told how far it is.
        folder: Where to keep them as files that are mapped into memory and not read, for sets larger than memory and
            for several processes; what lies there already is taken. None keeps them in memory.
    """
    progress.stage(f"Preparing {counted(len(cases), 'labelled scan')}")
    if folder is not None:
        clear_partials(folder)
    prepared = {}
    for done, case in enumerate(cases, 1):
        if folder is None or not (folder / f"{case.name}.npz").is_file():
            with engine():
                images = [str(image) for image in case.images]
                data, labels, properties = configuration.preprocessor_class(verbose=False).run_case(
                    images, str(case.label), plans, configuration, dataset_json
                )
            data, labels = data.astype(np.float32, copy=False), labels.astype(np.int16, copy=False)
            if folder is None:
                prepared[case.name] = (data, labels, properties)
            else:
                _keep(folder, case.name, data, labels, properties["class_locations"])
        if folder is not None:
            prepared[case.name] = _kept(folder, case.name)
        progress.advance(done, len(cases), case.name)
    return MemoryDataset(prepared)


def _keep(folder: Path, name: str, data: np.ndarray, labels: np.ndarray, locations: Mapping[Any, Any]) -> None:
    """Write a prepared scan; the places of its labels come last and say that it is whole."""
    for part, array in (("data", data), ("labels", labels)):
        with whole(folder / f"{name}.{part}.npy") as partial:
            np.save(partial, array)
    with whole(folder / f"{name}.npz") as partial:
        # a label's key is a number, or several where voxels are ignored
        places: dict[str, Any] = {json.dumps(key): np.asarray(found) for key, found in locations.items()}
        np.savez(partial, **places)


def _kept(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    data, labels = (np.load(folder / f"{name}.{part}.npy", mmap_mode="r") for part in ("data", "labels"))
    with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
        keys = {text: json.loads(text) for text in file.files}
        locations = {tuple(key) if isinstance(key, list) else key: file[text] for text, key in keys.items()}
    return data, labels, {"class_locations": locations}


class SeededBatches(Dataset[dict[str, Any]]):
    """Batch number i is drawn and augmented from (seed, i) alone; each of several processes draws its own."""

    def __init__(self, loader: nnUNetDataLoader, seed: int, rank: int | None = None) -> None:
        self._loader = loader
        self._seed = seed
        self._rank = () if rank is None else (rank,)

    def __getitem__(self, iteration: int) -> dict[str, Any]:
        """Data (B, C, z, y, x) and target, a list where deep supervision is on."""
        seed_everything(self._seed, iteration, *self._rank)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # sums over several threads differ in the last bit
        try:
            batch: dict[str, Any] = next(self._loader)
        finally:
            torch.set_num_threads(threads)
        return batch

    def over(self, iterations: range, workers: int, *, pin: bool) -> Iterable[dict[str, Any]]:
        """Give the batches of these iterations in their order, made here or by worker processes."""
        if workers == 0:
            return (self[i] for i in iterations)
        return DataLoader(
            self,
            batch_size=None,
            sampler=list(iterations),
            num_workers=workers,
            prefetch_factor=2,
            pin_memory=pin,
            worker_init_fn=_leave_interrupts_to_the_parent,
        )


def loader_for(trainer: Any, dataset: MemoryDataset) -> nnUNetDataLoader:
    """nnU-Net's data loader with its default augmentation, on scans in memory."""
    manager, labels = trainer.configuration_manager, trainer.label_manager
    rotation, dummy_2d, initial_patch, mirror_axes = (
        trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    )
    transforms = trainer.get_training_transforms(
        manager.patch_size,
        rotation,
        trainer._get_deep_supervision_scales(),
        mirror_axes,
        dummy_2d,
        use_mask_for_norm=manager.use_mask_for_norm,
        foreground_labels=labels.foreground_labels,
        ignore_label=labels.ignore_label,
    )
    _make_deterministic(transforms)
    return nnUNetDataLoader(
        dataset,
        trainer.batch_size,
        initial_patch,
        manager.patch_size,
        labels,
        oversample_foreground_percent=trainer.oversample_foreground_percent,
        transforms=transforms,
    )


def _make_deterministic(transform: Any) -> None:
    """The blur times two implementations and takes the faster: let it not."""
    if hasattr(transform, "benchmark"):
        transform.benchmark = False
    for inner in [*getattr(transform, "transforms", []), *filter(None, [getattr(transform, "transform", None)])]:
        _make_deterministic(inner)


def _leave_interrupts_to_the_parent(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
