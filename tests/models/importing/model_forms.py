"""A small model of every form that can be imported, and what has to be said of it: a line a form."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets.segresnet import SegResNet

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.models.export_model import export_model
from lnsegfm.models.importing.forms import nnssl_encoder
from lnsegfm.models.install import ImportOptions, install
from lnsegfm.models.model_folder import Model, read_model, read_models
from lnsegfm.nnunet.plan_axes import with_axes
from lnsegfm.weights.checkpoint import save, write_checkpoint
from tests.models.importing import test_monai_bundle as monai_bundle
from tests.models.importing import test_nnssl_form as nnssl
from tests.models.importing import test_stu_net_form as stu_net
from tests.models.importing import test_suprem_form as suprem
from tests.models.importing import test_voxtell_form as voxtell
from tests.models.importing import version_1
from tests.models.importing.producers import DATASET_JSON, Trained, exported_by_nnunet, trained_by_nnunet
from tests.models.importing.test_monai_forms import monai
from tests.models.importing.test_version_1_form import ANISOTROPIC, FEATURES, prepared
from tests.prediction.test_cascades_and_ensembles import DATA, write_configuration
from tests.prediction.test_regions import write_regions
from tests.scenes import small_plans
from tests.workflows.test_totalsegmentator import TASK

NODE = {"labels": LabelMap({"node": 1})}
WINDOW = {"spacing_mm": (2.0, 1.5, 1.5), "window_hu": (-60.0, 200.0)}


@dataclass(frozen=True)
class Form:
    """One form.

    Args:
        write: Writes its files into a folder; gives what is imported, several for an ensemble.
        options: What has to be said at the import.
        axes: On which axes the model then is; None where nobody knows them.
        adaptable: It can be fine-tuned.
        whole: It predicts as it is.
    """

    write: Callable[[Path], Path | list[Path]]
    options: Mapping[str, Any] = field(default_factory=dict)
    axes: str | None = "RAS"
    adaptable: bool = True
    whole: bool = True


def turned_plans(axes: str = "PIR") -> dict[str, Any]:
    """Plans of a network that saw scans on other axes than any file has, and takes them in another order."""
    plans = with_axes(small_plans(), axes, ".nii.gz")
    plans["configurations"]["3d_fullres"]["spacing"] = [2.3, 1.2, 1.4]
    return plans | {"transpose_forward": [1, 0, 2], "transpose_backward": [1, 0, 2]}


def trained(place: Path, plans: dict[str, Any] | None = None) -> Trained:
    return trained_by_nnunet(place, plans if plans is not None else turned_plans(), steps=12)


def bare(place: Path, plans: dict[str, Any]) -> Path:
    """Weights alone, plans and description beside them under other names."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "p.json").write_text(json.dumps(plans))
    (place / "d.json").write_text(json.dumps(DATASET_JSON))
    save(file := place / "weights.pth", {"state_dict": trained(place / "nnunet", plans).weights})
    return file


def safetensors(place: Path) -> Path:
    from safetensors.torch import save_file

    file = bare(place, small_plans())
    save_file(torch.load(file, weights_only=True)["state_dict"], place / "weights.safetensors")
    return place / "weights.safetensors"


def exported(place: Path) -> Path:
    export_model(trained(place / "nnunet").folder, "safetensors", place / "exported")
    return place / "exported"


def totalsegmentator(place: Path) -> Path:
    return trained_by_nnunet(place, small_plans(), steps=12, dataset=TASK, mirrored=False).folder.parent


def saved(network: torch.nn.Module, place: Path) -> Path:
    torch.save({"state_dict": network.state_dict()}, place / "model.pt")
    return place / "model.pt"


def seg_res_net(place: Path) -> Path:
    torch.manual_seed(0)
    return saved(SegResNet(in_channels=1, out_channels=2, **suprem.SEGRESNET), place)


def bundle(place: Path) -> Path:
    monai_bundle.bundle(place / "zoo", monai_bundle.transforms(monai_bundle.RANGE, axes="LAI"))
    return place / "zoo"


def stu_net_checkpoint(place: Path) -> Path:
    made = stu_net.checkpoint()
    write_checkpoint(place / "a.pth", replace(made, plans=dict(made.plans) | {"axes": "AIL"}))
    return place / "a.pth"


def of_version_1(place: Path) -> Path:
    torch.manual_seed(0)
    version_1.save(place / "fold_0" / "model_final_checkpoint.model", version_1.state_dict(FEATURES, **ANISOTROPIC))
    prepared(version_1.plans(**ANISOTROPIC, patch=(8, 16, 32), spacing=(2.0, 1.0, 1.0)), place / "plans.json")
    return place


def encoder_of_nnssl(place: Path) -> Path:
    return nnssl.write(place / "checkpoint_final.pth", nnssl.network().state_dict(), nnssl.plan())


def encoder_of_voxtell(place: Path) -> Path:
    (place / "fold_0").mkdir(parents=True)
    torch.save({"network_weights": voxtell.weights()}, place / "fold_0" / "checkpoint_final.pth")
    (place / "plans.json").write_text(json.dumps(voxtell.plans()))
    return place


def configuration(*names: str, axes: str = "SRP") -> Callable[[Path], Path]:
    def write(place: Path) -> Path:
        for seed, name in enumerate(names):
            write_configuration(place, name, change=lambda plans: plans.update(axes=axes), seed=3 + 8 * seed)
        return place / DATA

    return write


def ensemble(place: Path) -> list[Path]:
    """Two models on different axes, one of slices."""
    return [configuration("3d_fullres", axes="RAS")(place / "a"), configuration("2d", axes="LIP")(place / "b")]


def regions(place: Path) -> Path:
    write_regions(place, "kidney")
    return place


FORMS: dict[str, Form] = {
    "nnU-Net folder": Form(lambda place: trained(place).folder, axes="PIR"),
    "nnU-Net zip": Form(lambda place: exported_by_nnunet(trained(place), place / "model.zip"), axes="PIR"),
    "checkpoint alone": Form(lambda place: trained(place).checkpoint, axes="PIR"),
    "weights alone": Form(lambda place: bare(place, small_plans()), {"plans": "p.json", "dataset_json": "d.json",
                                                                    "axes": "SLA"}, axes="SLA"),
    "weights alone, nothing said": Form(lambda place: bare(place, small_plans()),
                                        {"plans": "p.json", "dataset_json": "d.json"}, axes=None),
    "safetensors alone": Form(safetensors, {"plans": "p.json", "dataset_json": "d.json", "axes": "LPI"}, axes="LPI"),
    "exported safetensors": Form(exported, axes="PIR"),
    "MONAI SwinUNETR": Form(lambda place: saved(monai(), place), NODE | WINDOW | {"patch_size": (32, 32, 64)}),
    "MONAI SegResNet": Form(seg_res_net, NODE | WINDOW | {"patch_size": (16, 16, 32)}),
    "MONAI bundle": Form(bundle, axes="LAI"),
    "STU-Net checkpoint": Form(stu_net_checkpoint, axes="AIL"),
    "SuPreM U-Net": Form(lambda place: suprem.released("U-Net", place / "suprem.pth"),
                         {"patch_size": (16, 16, 32)}, whole=False),
    "nnssl encoder": Form(encoder_of_nnssl, {"spacing_mm": (2.0, 1.0, 1.0), "patch_size": (32, 32, 64),
                                             "axes": "IPR"}, axes="IPR", whole=False),
    "VoxTell encoder": Form(encoder_of_voxtell, {"spacing_mm": (2.0, 1.0, 1.0)}, whole=False),
    "TotalSegmentator folder": Form(totalsegmentator),
    "nnU-Net version 1": Form(of_version_1, NODE | {"axes": "ARI"}, axes="ARI"),
    "low resolution": Form(configuration("3d_lowres"), axes="SRP"),
    "slices": Form(configuration("2d"), axes="SRP", adaptable=False),
    "cascade": Form(configuration("3d_lowres", "3d_cascade_fullres"), axes="SRP", adaptable=False),
    "ensemble": Form(ensemble, adaptable=False),
    "regions": Form(regions, {"axes": "RSA"}, axes="RSA"),
}  # fmt: skip


def imported(name: str, place: Path) -> Model:
    """Write a form's files, import them and read the model; LNSEGFM_HOME must be one of the test's."""
    form = FORMS[name]
    place.mkdir(parents=True)
    written = form.write(place)
    options = {key: place / value if key in ("plans", "dataset_json") else value for key, value in form.options.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nnssl_encoder, "FEATURES", nnssl.FEATURES)  # the release's network, with fewer features
        sources = written if isinstance(written, list) else [written]
        names = [f"{place.name}{number}" for number in range(len(sources))]
        for source, each in zip(sources, names, strict=True):
            install(source, each, ImportOptions(**options))
    if len(names) > 1:
        return read_models([Path(each) for each in names])
    return read_model(Path(names[0]), whole=form.whole)
