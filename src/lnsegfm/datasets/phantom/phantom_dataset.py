"""Phantoms as an nnU-Net raw dataset, with the exact truth about every node beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.datasets.nnunet_layout import dataset_description, image_name, label_name
from lnsegfm.datasets.phantom.domain import Domain
from lnsegfm.datasets.phantom.phantom_case import IGNORE, LYMPH_NODE, VERSION, PhantomCase, case_name, make_case
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.imaging.files import write_volume
from lnsegfm.progress import Progress
from lnsegfm.storage import clear_partials, read_json, write_json


def write_dataset(
    out: Path, *, cases: int, domain: Domain, seed: int, first: int = 0, progress: Progress | None = None
) -> None:
    """Write cases ``first`` to ``first + cases - 1`` of a domain and seed to a folder.

    A finished case is kept, so the same call continues an interrupted one, and a call with more cases adds to a
    dataset. ``dataset.json`` is written last: a folder that has none is not complete.

    Args:
        out: The folder. It gets ``imagesTr``, ``labelsTr``, ``nodes``, ``dataset.json`` and ``phantom.json``.
        cases: How many.
        domain: Parameters of the population.
        seed: Of the random numbers.
        first: Number of the first case.
        progress: Reported to after each case.

    Raises:
        ConfigError: A number that cannot be.
        DataError: The folder holds something else, or the nodes do not fit.
    """
    for name, value, low in (("cases", cases, 1), ("seed", seed, 0), ("first", first, 0)):
        if value < low:
            raise ConfigError(f"{name} {value}: it cannot be less than {low}. Use {low} or more.")
    identity = {"version": VERSION, "seed": seed, "domain": domain.as_dict()}
    _claim(out, identity)
    for folder in ("imagesTr", "labelsTr", "nodes"):
        clear_partials(out / folder)
    for done, index in enumerate(range(first, first + cases), start=1):
        name = case_name(domain.site, index)
        if not _sidecar(out, name).is_file():
            _write_case(out, make_case(domain, seed, index))
        if progress is not None:
            progress.advance(done, cases, name)
    write_json(out / "dataset.json", _dataset_json(domain, len(list((out / "nodes").glob("phantom_*.json")))))


def _claim(out: Path, identity: dict[str, Any]) -> None:
    """Make the folder this dataset's, or find that it is."""
    card = out / "phantom.json"
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: it is a file. Give a folder for the phantoms.")
    if not card.is_file():
        if out.is_dir() and any(out.iterdir()):
            raise DataError(f"{out}: the folder holds something that is no phantom dataset. Give a new folder.")
        write_json(card, identity)
        return
    existing = read_json(card)
    if existing != identity:
        raise DataError(f"{out}: the folder holds phantoms of {_difference(existing, identity)}. Give another folder.")


def _difference(existing: Any, wanted: dict[str, Any]) -> str:
    if not isinstance(existing, dict):
        return "an unknown kind"
    domain = existing.get("domain") or {}
    pairs = [(k, existing.get(k), wanted[k]) for k in ("version", "seed")]
    pairs += [(k, domain.get(k), v) for k, v in wanted["domain"].items()]
    return ", ".join(f"{k} {a} instead of {b}" for k, a, b in pairs if a != b) or "another kind"


def _sidecar(out: Path, name: str) -> Path:
    return out / "nodes" / f"{name}.json"


def _write_case(out: Path, case: PhantomCase) -> None:
    """The sidecar comes last: where it is, the image and the mask are."""
    write_volume(out / "imagesTr" / image_name(case.name), case.image_hu, case.grid)
    write_volume(out / "labelsTr" / label_name(case.name), case.mask, case.grid)
    write_json(_sidecar(out, case.name), case.truth())


def _dataset_json(domain: Domain, cases: int) -> dict[str, Any]:
    labels = LabelMap({"lymph_node": LYMPH_NODE}, ignore=IGNORE if domain.annotated_share < 1 else None)
    return dataset_description(("CT",), labels, cases)
