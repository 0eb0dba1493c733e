"""What the configs of a MONAI bundle say of its model: read as data, never evaluated.

A bundle holds ``models/model.pt`` beside ``configs/inference.json`` and ``configs/metadata.json``
(https://docs.monai.io/en/stable/mb_specification.html). Of what the configs may hold, plain values and references to
plain values (``@pixdim``) are taken; expressions (``$...``) are programs, so what they would give is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError, ModelError
from lnsegfm.models.importing.import_options import ImportOptions
from lnsegfm.models.importing.model_source import BUNDLE, ModelSource, SourceKind
from lnsegfm.models.importing.synthesise_plans import CT

LARGEST = 16 * 2**20
"""Bytes of a config; published ones have some thousand."""
DEEPEST = 64
NETWORKS = ("SegResNet", "SwinUNETR")
NO_MARK: Mapping[str, tuple[Any, ...]] = {
    "act": ("RELU", "relu", ["RELU", {"inplace": True}], ["relu", {"inplace": True}]),
    "norm": (["GROUP", {"num_groups": 8}], ["group", {"num_groups": 8}]),
    "num_groups": (8,),
    "upsample_mode": ("nontrainable",),
    "downsample": ("merging",),
    "norm_name": ("instance", "INSTANCE"),
    "normalize": (True,),
}
"""Arguments that leave no mark in the weights, with the values that are built here: MONAI's defaults."""
INTENSITIES = (
    "NormalizeIntensityd",
    "ScaleIntensityd",
    "ScaleIntensityRangePercentilesd",
    "ClipIntensityPercentilesd",
    "ThresholdIntensityd",
    "HistogramNormalized",
    "AdjustContrastd",
)
PER_SCAN_IS_Z_SCORE = ["NormalizeIntensityd"]
PAIRS = ("RL", "AP", "SI")


@dataclass(frozen=True, kw_only=True)
class MonaiBundle:
    """What a bundle says.

    Args:
        said: What it says that options say otherwise; empty fields where it does not.
        axes: Axis code of its arrays; None where no config says it.
        unreadable: Its transforms of intensities that plans cannot state.
        citation: Its references.
    """

    said: ImportOptions
    axes: str | None
    unreadable: tuple[str, ...]
    citation: str | None

    def fill(self, options: ImportOptions, path: Path) -> tuple[ImportOptions, tuple[str, ...]]:
        """Options with what the bundle says where the user does not, and the notes on them.

        Raises:
            ModelError: Its intensities cannot be stated in plans, and no ``--window`` is given.
        """
        taken = {name: getattr(self.said, name) for name in self.said.given - options.given}
        names = {"labels": "labels", "channels": "channels", "spacing_mm": "spacing", "window_hu": "window"}
        words = [names.get(name, "patch size") for name in sorted(taken)]
        notes = [f"Its bundle's configs say: {', '.join(words)}."] if words else []
        if self.axes is None:
            notes.append("Its bundle's configs name no orientation: RAS is assumed, --axes says otherwise.")
        if self.unreadable:
            how = f"its config scales intensities by {', '.join(self.unreadable)}, which plans of nnU-Net cannot state"
            if options.window_hu is None and not options.channels:
                raise ModelError(
                    f"{path}: {how}. To adapt it with finetune all the same, give --window LOW HIGH for CT, else "
                    "--channel NAME; what it predicts before that is not what MONAI predicts."
                )
            notes.append(f"{how[0].upper()}{how[1:]}: adapt it with finetune, it does not predict as MONAI's does.")
        return replace(options, **taken), tuple(notes)


def read_bundle(source: ModelSource) -> MonaiBundle | None:
    """What the configs beside a bundle's weights say; None where the weights are no bundle's.

    Raises:
        ModelError: A config is not JSON, or says that the network is one that is not built here.
    """
    folder = source.place.parent.parent / BUNDLE[0].parent
    if source.kind not in (SourceKind.CHECKPOINT, SourceKind.TENSORS) or source.place.parent.name != "models":
        return None
    if not any((source.place.parent.parent / name).is_file() for name in BUNDLE):
        return None
    config, about = (_table(folder / name) for name in ("inference.json", "metadata.json"))
    _require_network(config, source.path)
    transforms = list(_targets(_resolve(config, config.get("preprocessing"))))
    formats = about.get("network_data_format")
    inputs, outputs = (_first(formats, side) for side in ("inputs", "outputs"))
    channels = _channels(inputs)
    window, unreadable = _intensities(transforms, of_ct=not channels or CT in (name.upper() for name in channels))
    if any(each.get("sigmoid") is True for each in _targets(_resolve(config, config.get("postprocessing")))):
        raise ModelError(
            f"{source.path}: its config takes each output by a sigmoid, so its labels overlap and none is background. "
            "Take a model whose outputs are background and labels."
        )
    inferer = _resolve(config, config.get("inferer"))
    said = ImportOptions(
        labels=_labels(outputs),
        channels=channels,
        spacing_mm=_three(_value(config, transforms, "Spacingd", "pixdim")),
        window_hu=window,
        patch_size=_whole(_resolve(config, inferer.get("roi_size")) if isinstance(inferer, Mapping) else None),
    )
    cited = about.get("references")
    citation = "; ".join(str(each) for each in cited)[:1000] if isinstance(cited, list) and cited else None
    axes = _value(config, transforms, "Orientationd", "axcodes")
    return MonaiBundle(
        said=said, axes=_axes(axes, source.path) if axes else None, unreadable=unreadable, citation=citation
    )


def _table(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    if file.stat().st_size > LARGEST:
        raise ModelError(f"{file}: more than {LARGEST // 2**20} MB, which no config of a bundle has. Copy it again.")
    try:
        read = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError:
        raise ModelError(f"{file}: not JSON. Copy the bundle again.") from None
    return read if isinstance(read, dict) else {}


def _resolve(config: Mapping[str, Any], value: Any) -> Any:
    """A value, or the plain one that it refers to; None for an expression and for what is not there."""
    for _ in range(DEEPEST):
        if not isinstance(value, str) or not value.startswith(("@", "$")):
            return value
        if value.startswith("$"):
            return None
        found: Any = config
        for part in value[1:].replace("::", "#").split("#"):
            found = found.get(part) if isinstance(found, Mapping) else None
        value = found
    return None


def _targets(value: Any) -> Iterator[Mapping[str, Any]]:
    """The entries that name a class, in the order in which a chain of transforms applies them."""
    if isinstance(value, list):
        for each in value:
            yield from _targets(each)
    elif isinstance(value, Mapping) and value.get("_disabled_") is not True:
        if isinstance(value.get("_target_"), str):
            yield value
        yield from _targets(value.get("transforms"))


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry["_target_"]).rpartition(".")[2]


def _value(config: Mapping[str, Any], transforms: list[Mapping[str, Any]], target: str, key: str) -> Any:
    """An argument of the last transform of a class that has it."""
    values = [_resolve(config, each.get(key)) for each in transforms if _name(each) == target]
    return values[-1] if values else None


def _require_network(config: Mapping[str, Any], path: Path) -> None:
    network = next(_targets(config.get("network_def")), None) or next(_targets(config.get("network")), None)
    if network is None:
        return
    if _name(network) not in NETWORKS:
        raise ModelError(
            f"{path}: its config builds MONAI's {_name(network)}. Bundles with {' or '.join(NETWORKS)} are read; "
            "take one of those."
        )
    for key, built in NO_MARK.items():
        if key in network and network[key] not in built:
            raise ModelError(
                f"{path}: its config builds {_name(network)} with {key} {network[key]!r}, which is not built here. "
                "Take a model with MONAI's default."
            )


def _intensities(
    transforms: list[Mapping[str, Any]], *, of_ct: bool
) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """The window that becomes 0 to 1, or the transforms that are no such window."""
    names = [_name(each) for each in transforms]
    others = [name for name in names if name in INTENSITIES]
    scaled = [each for each in transforms if _name(each) == "ScaleIntensityRanged"]
    if not scaled:
        if of_ct:
            return None, tuple(others)
        return None, () if others == PER_SCAN_IS_Z_SCORE else tuple(others) or ("no transform that is known",)
    low, high, *rest = (scaled[0].get(key) for key in ("a_min", "a_max", "b_min", "b_max"))
    plain = rest == [0, 1] and scaled[0].get("clip") is True and isinstance(low, (int, float))
    if not plain or not isinstance(high, (int, float)) or len(scaled) > 1 or others or not of_ct:
        return None, tuple(dict.fromkeys(["ScaleIntensityRanged", *others]))
    return (float(low), float(high)), ()  # type: ignore[arg-type]  # plain says that it is a number


def _first(formats: Any, side: str) -> Mapping[str, Any]:
    """The description of the only input or output: metadata of a model with one of each."""
    entries = formats.get(side) if isinstance(formats, Mapping) else None
    entry = next(iter(entries.values()), None) if isinstance(entries, Mapping) and entries else None
    return entry if isinstance(entry, Mapping) else {}


def _channels(inputs: Mapping[str, Any]) -> tuple[str, ...]:
    number, modality = inputs.get("num_channels"), inputs.get("modality")
    if number == 1:
        return (modality.strip(),) if isinstance(modality, str) and modality.strip().isprintable() else ()
    names = inputs.get("channel_def")
    if not isinstance(names, Mapping) or not isinstance(number, int) or number != len(names):
        return ()
    listed = [str(names.get(str(i), "")).strip() for i in range(number)]
    return tuple(listed) if all(name and name.isprintable() for name in listed) else ()


def _labels(outputs: Mapping[str, Any]) -> LabelMap | None:
    """The labels of the outputs; None where they are not background and one name each."""
    names = outputs.get("channel_def")
    if not isinstance(names, Mapping) or str(names.get("0", "")).strip().casefold() != "background":
        return None
    numbers = {str(i): str(names.get(str(i), "")).strip() for i in range(1, len(names))}
    if len(set(numbers.values())) != len(numbers) or not all(numbers.values()):
        return None
    try:
        return LabelMap({name: int(i) for i, name in numbers.items()})
    except DataError:
        return None


def _three(value: Any) -> tuple[float, float, float] | None:
    """MONAI's (x, y, z) as (z, y, x); None where an axis keeps its spacing (-1)."""
    if not isinstance(value, list) or len(value) != len(PAIRS):
        return None
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) and 0 < v < float("inf") for v in value):
        return None
    return float(value[2]), float(value[1]), float(value[0])


def _whole(value: Any) -> tuple[int, int, int] | None:
    sizes = _three(value)
    if sizes is None or any(size != int(size) for size in sizes):
        return None
    return int(sizes[0]), int(sizes[1]), int(sizes[2])


def _axes(code: Any, path: Path) -> str:
    in_order = isinstance(code, str) and len(code) == len(PAIRS)
    if not in_order or not all(letter in pair for letter, pair in zip(code, PAIRS, strict=True)):
        raise ModelError(
            f"{path}: its config turns scans to {code!r}. Axes that run left-right, front-back, head-foot are "
            "read, in this order, such as RAS."
        )
    return str(code)
