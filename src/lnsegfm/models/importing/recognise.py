"""The table of forms: the first that fits is taken; each of the others gives its reason why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from lnsegfm.errors import ConfigError, ModelError
from lnsegfm.models.importing.auto3dseg import read_algorithm
from lnsegfm.models.importing.forms import (
    bare_weights as bare,
)
from lnsegfm.models.importing.forms import (
    exported_model as exported,
)
from lnsegfm.models.importing.forms import (
    monai_swin as monai,
)
from lnsegfm.models.importing.forms import (
    monai_unets,
)
from lnsegfm.models.importing.forms import (
    nnssl_encoder as nnssl,
)
from lnsegfm.models.importing.forms import (
    nnunet_checkpoint as checkpoint,
)
from lnsegfm.models.importing.forms import (
    nnunet_folder as folder,
)
from lnsegfm.models.importing.forms import (
    nnunet_version_1 as version_1,
)
from lnsegfm.models.importing.forms import (
    stu_net_weights as stu_net,
)
from lnsegfm.models.importing.forms import (
    suprem_backbone as suprem,
)
from lnsegfm.models.importing.forms import (
    voxtell_encoder as voxtell,
)
from lnsegfm.models.importing.import_options import FLAGS, ImportOptions
from lnsegfm.models.importing.model_source import ModelSource, SourceKind
from lnsegfm.models.importing.monai_bundle import read_bundle
from lnsegfm.models.importing.recognised import NotThisForm, RecognisedModel


@dataclass(frozen=True)
class ModelForm:
    """A form of model.

    Args:
        name: What people call it.
        read: Recognises it, or raises `NotThisForm`.
        takes: Which options say something that it does not say itself.
    """

    name: str
    read: Callable[[ModelSource, ImportOptions], RecognisedModel]
    takes: frozenset[str]


FORMS: tuple[ModelForm, ...] = (
    ModelForm("safetensors exported by lnsegfm", exported.read, exported.TAKES),
    ModelForm("VoxTell checkpoint", voxtell.read, voxtell.TAKES),
    ModelForm("nnU-Net model folder", folder.read, folder.TAKES),
    ModelForm("nnssl checkpoint", nnssl.read, nnssl.TAKES),
    ModelForm("nnU-Net checkpoint with plans inside", checkpoint.read, checkpoint.TAKES),
    ModelForm("nnU-Net version 1 model", version_1.read, version_1.TAKES),
    ModelForm("STU-Net weights", stu_net.read, stu_net.TAKES),
    ModelForm("SuPreM backbone", suprem.read_backbone, suprem.TAKES_BACKBONE),
    ModelForm("U-Net of Models Genesis, MONAI SegResNet", suprem.read, suprem.TAKES),
    ModelForm("MONAI SwinUNETR", monai.read, monai.TAKES),
    ModelForm("MONAI SwinViT", monai.read_encoder, monai.TAKES_ENCODER),
    ModelForm("MONAI DynUNet, SegResNetDS", monai_unets.read, monai_unets.TAKES),
    ModelForm("state dict with a plans file", bare.read, bare.TAKES),
)


def recognise(source: ModelSource, options: ImportOptions) -> RecognisedModel:
    """Find the form of a source. What the configs beside it say (MONAI bundle, Auto3DSeg) need not be said by options.

    Raises:
        ModelError: It is of none, or a bundle of a kind that is not read; the message says why.
        ConfigError: An option that the form has no use for.
    """
    bundle = read_bundle(source) or read_algorithm(source)
    if bundle is None:
        return _recognise(source, options, options.given)
    filled, notes = bundle.fill(options, source.path)
    found = _recognise(source, filled, options.given)
    return replace(
        found,
        form=f"{found.form} of {'an' if bundle.kind[0] in 'AEIOU' else 'a'} {bundle.kind}",
        files=(*found.files, *bundle.files),
        notes=(*found.notes, *notes),
        axes=bundle.axes or found.axes,
        citation=bundle.citation or found.citation,
    )


def _recognise(source: ModelSource, options: ImportOptions, given: frozenset[str]) -> RecognisedModel:
    """Find the form of a source, with ``given`` the options that the user gave.

    Raises:
        ModelError: It is of none; one line for each form that came near says why not.
        ConfigError: An option that the form has no use for.
    """
    near = []
    for form in FORMS:
        try:
            found = form.read(source, options)
        except NotThisForm as missed:
            if missed.reason:
                near.append(f"  {form.name}: {missed.reason}.")
            continue
        for name in sorted(given - form.takes):
            raise ConfigError(f"{FLAGS[name]}: {source.path} says that itself ({found.form}). Leave it out.")
        return found
    if source.kind is SourceKind.FOLDER:
        near.append("  single file of weights: there is none in it, or more than one.")
        if next(source.place.rglob("*.ts"), None) is not None:
            near.append("  TorchScript (.ts): it is a program that runs when it is loaded; give models/model.pt.")
    raise ModelError("\n".join([f"{source.path}: not a model in a form that is known.", *near]))
