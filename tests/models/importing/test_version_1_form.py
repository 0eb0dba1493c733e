"""Models of nnU-Net version 1: the converted network gives version 1's numbers; plans come as JSON, not as pickle."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import LnSegFmError, ModelError
from lnsegfm.models.importing.version_1_weights import convert_version_1
from lnsegfm.models.model_folder import read_model
from lnsegfm.networks.stu_net import STUNet
from lnsegfm.nnunet.network_building import build_network
from tests.models.importing import version_1
from tests.nnunet.stock import stock_predict_here

NODE = LabelMap({"node": 1})
FEATURES = (4, 6, 8, 8)
ANISOTROPIC: dict[str, Any] = {
    "strides": ((1, 2, 2), (2, 2, 2), (2, 2, 1)),
    "kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 1)),
}
ISOTROPIC: dict[str, Any] = {"strides": ((2, 2, 2),) * 3, "kernels": ((3, 3, 3),) * 4}
PLANAR: dict[str, Any] = {"strides": ((2, 2),) * 3, "kernels": ((3, 3),) * 4}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """A fold of version 1 with its plans as JSON beside it; gives its file."""

    def run(topology: dict[str, Any], patch: Any, spacing: Any = (2.0, 1.0, 1.0), axes: Any = (0, 1, 2)) -> Path:
        torch.manual_seed(0)
        weights = version_1.state_dict(FEATURES, **topology)
        file = version_1.save(tmp_path / "v1" / "fold_0" / "model_final_checkpoint.model", weights)
        plans = version_1.plans(**topology, patch=patch, spacing=spacing, axes=axes)
        prepared(plans, tmp_path / "v1" / "plans.json")
        return file

    return run


def snippet() -> str:
    """The lines that the documentation gives."""
    page = Path(__file__, "..", "..", "..", "..", "docs", "models.md").resolve().read_text()
    found = re.search(r"```python\n(import json, pickle\n.*?)```", page, re.DOTALL)
    assert found is not None
    return found[1]


def prepared(plans: dict[str, Any], file: Path) -> None:
    """Write version 1's pickle, and its plans as JSON by the lines that the documentation gives."""
    fold = file.parent / "fold_0"
    fold.mkdir(parents=True, exist_ok=True)
    info = {"init": (), "name": "nnUNetTrainerV2", "class": "", "plans": plans}
    (fold / "model_final_checkpoint.model.pkl").write_bytes(pickle.dumps(info))
    code = snippet().replace('"fold_0/', f'"{fold}/').replace('"plans.json"', f'"{file}"')
    exec(code, {})  # of the documentation, on a file made here


@pytest.mark.parametrize("topology", [ANISOTROPIC, ISOTROPIC, PLANAR], ids=["anisotropic", "isotropic", "2d"])
def test_the_converted_network_gives_version_1s_numbers(topology, write, take):
    planar = topology is PLANAR
    patch = (16, 32) if planar else (8, 16, 32)
    file = write(topology, patch)
    stored = take(file, labels=NODE)
    model = read_model(Path("it"))
    network = build_network(model.first, deep_supervision=True).double().eval()
    network.load_state_dict(model.first.weights)

    weights = {n: t.double() for n, t in torch.load(file, weights_only=False)["state_dict"].items()}
    image = torch.randn(2, 1, *patch, dtype=torch.float64)
    wanted = version_1.logits(image, weights, topology["strides"])
    with torch.no_grad():
        given = network(image)
    assert len(given) == len(wanted) == 3
    assert all(torch.allclose(one, other, atol=1e-10) for one, other in zip(given, wanted, strict=True))
    assert model.network_class.endswith("unet.PlainConvUNet")
    assert model.first.trainer_name == "nnUNetTrainer"
    assert model.first.mirroring_axes == ((0, 1) if planar else (0, 1, 2))
    assert stored.source.form.startswith(f"nnU-Net version 1 model, {'2d' if planar else '3d_fullres'}, PlainConvUNet")


def test_its_plans_say_what_version_1s_said(write, take):
    take(write(ANISOTROPIC, (8, 16, 32), (3.0, 0.8, 0.9), (1, 0, 2)), labels=NODE)
    plans = read_model(Path("it")).plans
    settings = plans["configurations"]["3d_fullres"]
    assert (settings["patch_size"], settings["spacing"]) == ([8, 16, 32], [3.0, 0.8, 0.9])
    assert (plans["transpose_forward"], plans["transpose_backward"]) == ([1, 0, 2], [1, 0, 2])
    assert settings["normalization_schemes"] == ["CTNormalization"]
    statistics = plans["foreground_intensity_properties_per_channel"]["0"]
    assert (statistics["mean"], statistics["std"]) == (30.0, 120.0)
    assert (statistics["percentile_00_5"], statistics["percentile_99_5"]) == (-500.0, 400.0)


def test_a_scan_of_its_spacing_is_predicted_as_version_1_defines_it(write, take, tmp_path, lnsegfm_here, home):
    """One tile at the model's spacing: clipped and normalised by the plans, through version 1's network, its argmax."""
    file = write(ANISOTROPIC, (8, 16, 32))
    take(file, labels=NODE)
    scan = np.random.default_rng(0).normal(50, 200, (8, 16, 32)).astype(np.float32)
    image = sitk.GetImageFromArray(scan)
    image.SetSpacing((1.0, 1.0, 2.0))
    (tmp_path / "in").mkdir()
    sitk.WriteImage(image, str(tmp_path / "in" / "scan_0000.nii.gz"))
    done = lnsegfm_here(
        "predict", "it", tmp_path / "in", "--out", tmp_path / "out", "--device", "cpu", "--no-mirroring"
    )
    assert done.returncode == 0, done.stderr
    stock_predict_here(home / "models" / "it", tmp_path / "in", tmp_path / "stock", mirroring=False)

    seen = torch.from_numpy((scan.clip(-500, 400) - 30) / 120)[None, None]
    weights = torch.load(file, weights_only=False)["state_dict"]
    wanted = version_1.logits(seen, weights, ANISOTROPIC["strides"])[0].argmax(1)[0].numpy()
    masks = [sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / p / "scan.nii.gz"))) for p in ("out", "stock")]
    assert 0.02 < wanted.mean() < 0.98
    assert np.array_equal(masks[0], wanted)
    assert (masks[1] == wanted).mean() > 0.98  # stock nnU-Net adds its logits up in half precision


def test_a_folder_of_folds(write, take, tmp_path):
    file = write(ISOTROPIC, (16, 16, 16))
    version_1.save(tmp_path / "v1" / "fold_1" / file.name, version_1.state_dict(FEATURES, **ISOTROPIC))
    stored = take(tmp_path / "v1", labels=NODE)
    assert len(stored.weights_sha256) == 2
    assert read_model(Path("it")).fold_names == ("0", "1")
    take(tmp_path / "v1", "one", labels=NODE, folds=("1",))
    assert read_model(Path("one")).fold_names == ("1",)


@pytest.mark.parametrize(
    ("trainer", "axes", "said"),
    [
        ("nnUNetTrainerV2_ep4000_nomirror", None, "prediction does not mirror."),
        ("nnUNetTrainerV2", (0, 1, 2), "prediction mirrors along all axes."),
        ("nnUNetTrainerV2_ReLU", (0, 1, 2), "Compare a mask with one of version 1."),
        (None, (0, 1, 2), "mirrors along all axes."),
    ],
)
def test_what_its_trainer_did_counts(trainer, axes, said, write, take, tmp_path):
    file = write(ISOTROPIC, (16, 16, 16))
    plans = json.loads((tmp_path / "v1" / "plans.json").read_text())
    (tmp_path / "v1" / "plans.json").write_text(json.dumps(plans | {"trainer": trainer}))
    stored = take(file, labels=NODE)
    assert read_model(Path("it")).first.mirroring_axes == axes
    assert stored.notes[-1].endswith(said)


def test_its_own_dataset_json_names_the_outputs(write, take, tmp_path):
    table = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "lymph node"}}
    (tmp_path / "dataset.json").write_text(json.dumps(table))
    take(write(ISOTROPIC, (16, 16, 16)), dataset_json=tmp_path / "dataset.json")
    model = read_model(Path("it"))
    assert dict(model.labels.names) == {"lymph node": 1}
    assert model.channel_names == ("CT",)


def refusal(take: Any, *args: Any, **options: Any) -> str:
    with pytest.raises(LnSegFmError) as refused:
        take(*args, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_without_plans_it_says_what_to_do_and_opens_no_pickle(write, take, tmp_path):
    class Opened:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "opened",))

    file = write(ISOTROPIC, (16, 16, 16))
    (tmp_path / "v1" / "plans.json").unlink()
    for place in ("fold_0/model_final_checkpoint.model.pkl", "plans.pkl"):
        (tmp_path / "v1" / place).write_bytes(pickle.dumps(Opened()))
    for source in (file, tmp_path / "v1"):
        said = refusal(take, source, labels=NODE)
        assert "its plans lie in a pickle" in said
        assert said.endswith("give that file with --plans.")
    assert "is not opened here" in refusal(take, file, labels=NODE, plans=tmp_path / "v1" / "plans.pkl")
    assert not (tmp_path / "opened").exists()


def test_what_does_not_belong_together_is_told(write, take, tmp_path):
    file = write(ISOTROPIC, (16, 16, 16))
    assert "nothing names them" in refusal(take, file)
    assert "2 outputs, background included, but --label names 2" in refusal(
        take, file, labels=LabelMap({"a": 1, "b": 2})
    )
    place = tmp_path / "v1" / "plans.json"
    plans = json.loads(place.read_text())

    def with_plans(change: Callable[[dict[str, Any]], object]) -> str:
        changed = copy.deepcopy(plans)
        change(changed)
        place.write_text(json.dumps(changed))
        return refusal(take, file, labels=NODE)

    stage = plans["plans_per_stage"]["0"]
    assert "its strides are not those of the weights" in with_plans(
        lambda p: p["plans_per_stage"]["0"].update(pool_op_kernel_sizes=[[2, 2, 2]] * 2 + [[1, 2, 2]])
    )
    assert "stages 3d_lowres, 3d_fullres. Choose with --configuration" in with_plans(
        lambda p: p["plans_per_stage"].update({"1": stage})
    )
    assert "normalisation CT2" in with_plans(lambda p: p.update(normalization_schemes={"0": "CT2"}))
    assert "('transpose_forward' is missing)" in with_plans(lambda p: p.pop("transpose_forward"))


def test_a_chosen_stage_is_taken(write, take, tmp_path):
    file = write(ISOTROPIC, (16, 16, 16))
    place = tmp_path / "v1" / "plans.json"
    plans = json.loads(place.read_text())
    low = plans["plans_per_stage"]["0"] | {"current_spacing": [4.0, 2.0, 2.0]}
    place.write_text(json.dumps(plans | {"plans_per_stage": {"0": low, "1": plans["plans_per_stage"]["0"]}}))
    take(file, labels=NODE, configuration="3d_lowres")
    model = read_model(Path("it"))
    assert model.configuration == "3d_lowres"
    assert model.plans["configurations"]["3d_lowres"]["spacing"] == [4.0, 2.0, 2.0]


def test_networks_that_version_2_has_not_are_refused():
    weights = version_1.state_dict(FEATURES, **ISOTROPIC)
    with pytest.raises(ModelError, match="pools and enlarges without weights"):
        convert_version_1({name: tensor for name, tensor in weights.items() if not name.startswith("tu.")})
    with pytest.raises(ModelError, match=r"its tensor attention\.0\.weight is none"):
        convert_version_1(weights | {"attention.0.weight": torch.zeros(1)})
    with pytest.raises(ModelError, match="not a whole U-Net"):
        convert_version_1({n: t for n, t in weights.items() if not n.startswith("conv_blocks_context.1.")})


JUNK: tuple[Any, ...] = (None, -1, 0, 2**40, 1.5, "", "x", [], [[]], {}, {"a": 1}, [1, 2], [0, 0, 0], True)


@pytest.mark.parametrize("kind", ["version 1", "STU-Net"])
def test_spoilt_plans_are_told_in_a_line(kind, write, take, tmp_path):
    """Plans with one entry of another kind: imported, or one of the project's errors."""
    file = write(ISOTROPIC, (16, 16, 16))
    if kind == "STU-Net":
        strides = ((1, 1, 1), *ISOTROPIC["strides"])
        sizes: dict[str, Any] = {"n_blocks_per_stage": (1,) * 4, "kernel_sizes": ISOTROPIC["kernels"]}
        version_1.save(file, STUNet(1, 2, features_per_stage=FEATURES, strides=strides, **sizes).state_dict())
    place = tmp_path / "v1" / "plans.json"
    whole = json.loads(place.read_text())

    def places(table: Any) -> Any:
        for key in list(table) if isinstance(table, dict) else range(len(table)):
            yield table, key
            if isinstance(table[key], (dict, list)):
                yield from places(table[key])

    draw, taken = random.Random(0), 0
    for _ in range(60):
        plans = copy.deepcopy(whole)
        container, key = draw.choice(list(places(plans)))
        if isinstance(container, dict) and draw.random() < 0.3:
            del container[key]
        else:
            container[key] = copy.deepcopy(draw.choice(JUNK))
        place.write_text(json.dumps(plans))
        with contextlib.suppress(LnSegFmError):
            take(file, labels=NODE, replace=True)
            taken += 1
    assert taken < 60
