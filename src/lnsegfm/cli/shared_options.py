"""Options that several commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from lnsegfm.errors import ConfigError

Data = Annotated[
    Path, typer.Argument(help="Labelled scans: an nnU-Net raw dataset, or a folder with images/ and labels/.")
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label", metavar="NAME=VALUE", help="What a number in the masks means, such as lymph_node=1; repeat for more."
    ),
]
Device = Annotated[
    str, typer.Option(help="What computes: cpu, cuda (NVIDIA GPU), mps (Apple GPU), or auto (cuda where there is one).")
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0, help="Processes that prepare training patches beside the training; the result does not depend on it."
    ),
]
Mirroring = Annotated[
    bool,
    typer.Option(
        "--mirroring/--no-mirroring",
        help="Predict 8 mirrored copies of each scan and average them, as nnU-Net does; without it 8 times faster.",
    ),
]
Mirror = Annotated[
    str,
    typer.Option(
        "--mirror",
        metavar="auto|all|none|swap|AXES",
        help="Axes along which patches, and copies at prediction, are mirrored. auto: the base's, less left-right "
        "where labels name sides; swap: left and right labels change places with the flip; or axes such as y,z.",
    ),
]
Memory = Annotated[
    float | None,
    typer.Option(
        metavar="GB",
        help="Memory to keep to, of the machine and of the GPU: slower and smaller steps instead of a crash. What the "
        "program, the model and one scan take is the least.",
    ),
]
Straighten = Annotated[
    bool, typer.Option("--straighten", help="Resample sheared series (gantry tilt) instead of refusing them.")
]
SeriesSelectors = Annotated[
    list[str] | None,
    typer.Option(
        "--series",
        metavar="SELECTOR",
        help="Which DICOM series of a study to take: plane=axial, kernel=B31f, thickness<=3, number=4, uid=1.2.3, "
        "description=*neck*, with commas between conditions that all have to hold, or all; repeat for more. Of each "
        "scan one is taken unless given.",
    ),
]
Configuration = Annotated[
    str | None,
    typer.Option(
        "--configuration",
        metavar="NAME",
        help="Which model, where a folder holds several: 3d_fullres, 2d, ...",
    ),
]
Folds = Annotated[
    list[str] | None,
    typer.Option("--fold", metavar="N", help="A fold to use, 0 or all; repeat. Every fold unless given."),
]
AcceptAutomatic = Annotated[
    bool, typer.Option("--accept-automatic", help="Take structures that an algorithm drew as reference too.")
]
PairByGeometry = Annotated[
    bool,
    typer.Option(
        "--pair-by-geometry", help="Give structures that no UID pairs to the only series on whose slices they lie."
    ),
]
ResampleUneven = Annotated[
    bool,
    typer.Option(
        "--resample-uneven",
        help="Interpolate series of uneven slice distances onto a grid of one distance instead of refusing them.",
    ),
]
FillBetween = Annotated[
    bool,
    typer.Option("--fill-between", help="Fill slices that were skipped between contoured ones, by interpolation."),
]
Shots = Annotated[
    str | None,
    typer.Option(
        "--shots",
        metavar="N|CASES",
        help="Train on this many scans, or on these (case_1,case_2, or a file with a name in each line), and hold out "
        "the rest; all unless given.",
    ),
]
HeldOut = Annotated[
    str | None,
    typer.Option(
        "--held-out",
        metavar="N|CASES",
        help="Hold out this many of the scans that are not trained on, or these; all of them unless given.",
    ),
]
OnlyCases = Annotated[
    str | None, typer.Option("--cases", metavar="CASES", help="Use these scans alone, as if no others were there.")
]
Exclude = Annotated[
    str | None, typer.Option("--exclude", metavar="CASES", help="Leave these scans out, as if they were not there.")
]
KeepLabels = Annotated[
    list[str] | None,
    typer.Option("--keep-labels", metavar="NAME", help="Use this label, and no others but those named so; repeat."),
]
Merge = Annotated[
    list[str] | None,
    typer.Option("--merge", metavar="NAME=A+B", help="Take labels as one, such as Parotid=Left+Right; repeat."),
]
Absent = Annotated[
    list[str] | None,
    typer.Option(
        "--absent",
        metavar="LABEL",
        help="A label that is truly absent where a reference lacks it and most others have it: what is predicted "
        "there counts as Dice 0. Else such cases are scored apart; repeat for more.",
    ),
]
AllowEmpty = Annotated[
    bool,
    typer.Option("--allow-empty", help="Keep scans whose label is empty: they truly hold nothing."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON for a program.")]


ModelAxes = Annotated[
    str | None,
    typer.Option(
        "--model-axes",
        metavar="RAS|LPS",
        help="Axes of the arrays that the model was trained on, for a model that does not know them.",
    ),
]


def _difference(value: float | None) -> float | None:
    if value is not None:
        from lnsegfm.report.comparison import require_difference

        require_difference(value)
    return value


SmallestDifference = Annotated[
    float | None,
    typer.Option(
        "--smallest-difference",
        metavar="DICE",
        callback=_difference,
        help="A smaller difference of the mean Dice is called too small to matter; 0.02 unless given.",
    ),
]


def pairs(texts: Iterable[str], option: str, example: str = "gamma=2") -> dict[str, str]:
    """Read ``NAME=VALUE`` texts.

    Raises:
        ConfigError: One of another form, or a name given twice.
    """
    values: dict[str, str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not name or not equals or name in values:
            raise ConfigError(f"{option} {text}: not NAME=VALUE, or a name given twice. Write {option} {example}.")
        values[name] = value
    return values


def require_folder(out: Path) -> None:
    """Refuse, before any work is done, a place for results that is a file.

    Raises:
        ConfigError: It is a file.
    """
    if out.is_file():
        raise ConfigError(f"--out {out}: it is a file. Name a folder.")


def print_json(content: Mapping[str, Any]) -> None:
    """Print for a program."""
    json.dump(content, sys.stdout, indent=2, ensure_ascii=False, default=str)
    print()
