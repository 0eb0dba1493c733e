"""``lnsegfm data phantom``: analytic CT phantoms as an nnU-Net raw dataset."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Site(StrEnum):
    """Part of the body."""

    neck = "neck"
    chest = "chest"


class DomainPreset(StrEnum):
    """Presets of the domain, by how far they are from ``base``."""

    base = "base"
    near = "near"
    far = "far"


class Contrast(StrEnum):
    """Phase of the contrast medium."""

    none = "none"
    arterial = "arterial"
    venous = "venous"
    delayed = "delayed"


def phantom(
    out: Annotated[Path, typer.Argument(help="Folder for the dataset; the same command goes on where it stopped.")],
    cases: Annotated[int, typer.Option(min=1, help="How many cases.")] = 10,
    site: Annotated[Site, typer.Option(help="Part of the body.")] = Site.neck,
    domain: Annotated[DomainPreset, typer.Option(help="Population that the options below change.")] = DomainPreset.base,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the random numbers; the same seed gives the same bytes.")
    ] = 0,
    first: Annotated[int, typer.Option(min=0, help="Number of the first case.")] = 0,
    contrast: Annotated[Contrast | None, typer.Option(help="Phase of the contrast medium.")] = None,
    noise_hu: Annotated[float | None, typer.Option("--noise", help="Standard deviation of the noise, HU.")] = None,
    blur_mm: Annotated[float | None, typer.Option("--blur", help="In-plane point spread, FWHM in mm.")] = None,
    spacing_mm: Annotated[
        tuple[float, float, float] | None, typer.Option("--spacing", help="Voxel spacing z y x, mm.", metavar="Z Y X")
    ] = None,
    size_mm: Annotated[
        tuple[float, float, float] | None, typer.Option("--size", help="Extent of the scan z y x, mm.", metavar="Z Y X")
    ] = None,
    node_count: Annotated[
        tuple[int, int] | None,
        typer.Option("--nodes", help="Fewest and most nodes of a case (3 to 40).", metavar="MIN MAX"),
    ] = None,
    node_size_mm: Annotated[
        tuple[float, float] | None,
        typer.Option("--node-size", help="Smallest and largest node diameter (3 to 30 mm).", metavar="MIN MAX"),
    ] = None,
    annotated_share: Annotated[
        float | None,
        typer.Option("--annotated", help="Share of nodes that are annotated; the rest is labelled `ignore`."),
    ] = None,
) -> None:
    """Make CT phantoms with lymph nodes of exactly known size."""
    from lnsegfm.cli.console import console
    from lnsegfm.datasets.phantom import preset, write_dataset

    settings: dict[str, Any] = {
        "contrast": contrast.value if contrast else None,
        "noise_hu": noise_hu,
        "blur_mm": blur_mm,
        "spacing_mm": spacing_mm,
        "size_mm": size_mm,
        "node_count": node_count,
        "node_size_mm": node_size_mm,
        "annotated_share": annotated_share,
    }
    chosen = replace(preset(domain.value, site.value), **{k: v for k, v in settings.items() if v is not None})
    with console() as progress:
        write_dataset(out, cases=cases, domain=chosen, seed=seed, first=first, progress=progress)
    print(f"{cases} {site.value} phantoms ({domain.value}, seed {seed}) are in {out}")
