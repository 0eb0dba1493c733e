"""What the configs of a MONAI bundle say of its model: read as data, never evaluated.

A bundle holds ``models/model.pt`` beside ``configs/inference.json`` and ``configs/metadata.json``, or the same in YAML
(https://docs.monai.io/en/stable/mb_specification.html). Of what the configs may hold, plain values and references to
plain values (``@pixdim``) are taken; expressions (``$...``) are programs, so what they would give is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError, ModelError
from lnsegfm.models.importing.config_files import config_files, read_config
from lnsegfm.models.importing.import_options import ImportOptions
from lnsegfm.models.importing.model_source import BUNDLE_CONFIGS, ModelSource, SourceKind, configs_of_bundle
from lnsegfm.models.importing.monai_config import (
    argument_of,
    axes_code,
    intensities,
    resolve,
    targets,
    three_z_y_x,
    whole_z_y_x,
)
from lnsegfm.models.importing.monai_network_config import network_of
from lnsegfm.models.importing.synthesise_plans import CT


@dataclass(frozen=True, kw_only=True)
class MonaiBundle:
    """What a bundle says.

    Args:
        said: What it says that options say otherwise; empty fields where it does not.
        axes: Axis code of its arrays; None where no config says it.
        unreadable: Its transforms of intensities that plans cannot state.
        citation: Its references.
        kind: What it is, for people.
        files: Its configs.
    """

    said: ImportOptions
    axes: str | None
    unreadable: tuple[str, ...]
    citation: str | None
    kind: str = "bundle"
    files: tuple[Path, ...] = ()

    def fill(self, options: ImportOptions, path: Path) -> tuple[ImportOptions, tuple[str, ...]]:
        """Options with what the bundle says where the user does not, and the notes on them.

        Raises:
            ModelError: Its intensities cannot be stated in plans, and no ``--window`` is given.
        """
        taken = {name: getattr(self.said, name) for name in self.said.given - options.given}
        names = {"labels": "labels", "channels": "channels", "spacing_mm": "spacing", "window_hu": "window"}
        words = [names.get(name, "patch size") for name in sorted(taken)]
        notes = [f"The configs of its {self.kind} say: {', '.join(words)}."] if words else []
        if self.axes is None:
            notes.append(f"The configs of its {self.kind} name no orientation: RAS is assumed, --axes says otherwise.")
        if self.unreadable:
            how = f"its config scales intensities by {', '.join(self.unreadable)}, which plans of nnU-Net cannot state"
            if options.window_hu is None and not options.channels:
                raise ModelError(
                    f"{path}: {how}. To adapt it with finetune all the same, give --window LOW HIGH for CT, else "
                    "--channel NAME; what it predicts before that is not what MONAI predicts."
                )
            notes.append(f"{how[0].upper()}{how[1:]}: adapt it with finetune, it does not predict as MONAI's does.")
        return replace(options, network=self.said.network, **taken), tuple(notes)


def read_bundle(source: ModelSource) -> MonaiBundle | None:
    """What the configs beside a bundle's weights say; None where the weights are no bundle's.

    Raises:
        ModelError: A config is not JSON or YAML, or says that the network is one that is not built here.
    """
    folder = configs_of_bundle(source.place)
    if folder is None or source.kind not in (SourceKind.CHECKPOINT, SourceKind.TENSORS):
        return None
    config, about = (read_config(folder, name) for name in BUNDLE_CONFIGS)
    network = network_of(config, source.path)
    transforms = list(targets(resolve(config, config.get("preprocessing"))))
    formats = about.get("network_data_format")
    inputs, outputs = (_first(formats, side) for side in ("inputs", "outputs"))
    channels = _channels(inputs)
    window, unreadable = intensities(transforms, of_ct=not channels or CT in (name.upper() for name in channels))
    if any(each.get("sigmoid") is True for each in targets(resolve(config, config.get("postprocessing")))):
        raise ModelError(
            f"{source.path}: its config takes each output by a sigmoid, so its labels overlap and none is background. "
            "Take a model whose outputs are background and labels."
        )
    inferer = resolve(config, config.get("inferer"))
    said = ImportOptions(
        labels=_labels(outputs),
        channels=channels,
        spacing_mm=three_z_y_x(argument_of(config, transforms, "Spacingd", "pixdim")),
        window_hu=window,
        patch_size=whole_z_y_x(resolve(config, inferer.get("roi_size")) if isinstance(inferer, Mapping) else None),
        network=network,
    )
    cited = about.get("references")
    citation = "; ".join(str(each) for each in cited)[:1000] if isinstance(cited, list) and cited else None
    axes = argument_of(config, transforms, "Orientationd", "axcodes")
    return MonaiBundle(
        said=said,
        axes=axes_code(axes, source.path) if axes else None,
        unreadable=unreadable,
        citation=citation,
        files=config_files(folder, *BUNDLE_CONFIGS),
    )


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
