"""Left and right: which array axis it is, what is settled, and that mirrored samples and predictions stay true."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from lnsegfm.datasets.dataset import Case
from lnsegfm.datasets.sided_labels import lone_sides, require_mirror, side_pairs
from lnsegfm.datasets.stored_axes import oblique_words
from lnsegfm.errors import ConfigError, ModelError
from lnsegfm.imaging.axis_code import AXIS_CODES
from lnsegfm.imaging.files import image_files, write_volume
from lnsegfm.imaging.grid import Grid
from lnsegfm.inference.tile_forward import TileForward
from lnsegfm.inference.tile_positions import mirrorings
from lnsegfm.models.model_folder import read_model
from lnsegfm.nnunet.mirroring import SWAP, mirrored_sides, patient_axis, settle_mirroring, swap_of_plans
from lnsegfm.prediction.predictor import Predictor
from lnsegfm.progress import Silent
from lnsegfm.recipe import Recipe
from lnsegfm.training.nnunet_trainer import NamedTrainer
from lnsegfm.training.side_aware_trainer import exchanging
from lnsegfm.transforms.augmentation.augmentation_parameters import AugmentationSettings, TransformRates
from lnsegfm.transforms.augmentation.augmented_batches import AugmentedBatches
from lnsegfm.transforms.augmentation.prepared_case import PreparedCase
from lnsegfm.transforms.mirror_swap import MirrorSwap
from lnsegfm.workflows.finetune import finetune
from lnsegfm.workflows.finetune_plan import plan
from lnsegfm.workflows.pretrain import pretrain
from lnsegfm.workflows.pretrain_plan import PretrainSettings
from tests.prediction.test_predictor import stock
from tests.scenes import SHAPE, small_plans, write_image

SIDED = ("background", "Parotid_L", "Parotid_R", "cord")
PLAIN = {"transpose_forward": [0, 1, 2], "axes": "LPS"}
pytestmark = pytest.mark.usefixtures("one_thread")


def test_labels_of_one_side_are_known_and_vertebrae_are_of_none():
    assert lone_sides(["LeftParotid", "cord"]) == ["LeftParotid"]
    assert lone_sides(["Lung_R", "4L", "Station 4R", "kidney right"]) == ["Lung_R", "4L", "Station 4R", "kidney right"]
    assert lone_sides([*(f"vertebrae_L{n}" for n in range(1, 6)), "liver", "Larynx", "left_and_right_lung"]) == []
    assert lone_sides(["Parotid_L", "Parotid_R", "Eye_L"]) == ["Eye_L"]
    assert side_pairs(["4R", "4L"]) == [("4L", "4R")]


def test_the_axes_of_the_patient_are_those_of_nibabel_for_every_storage_and_order_of_plans():
    for code in AXIS_CODES:
        ornt = nib.orientations.axcodes2ornt(tuple(code))
        for order in permutations(range(3)):
            for number, name in enumerate("xyz"):
                stored = 2 - int(np.flatnonzero(ornt[:, 0] == number)[0])  # arrays are z, y, x
                found = patient_axis({"axes": code, "transpose_forward": list(order)}, name)
                assert found == (order.index(stored), True)
    assert patient_axis({"transpose_forward": [0, 1, 2]}) == (2, False)


def test_what_is_settled():
    def settled(option: str, outputs: tuple[str, ...] = SIDED, **plans: object):
        return settle_mirroring(option, (0, 1, 2), PLAIN | plans, outputs)

    assert settled("auto").axes == (0, 1)
    assert settled("auto", axes="SPL").axes == (1, 2)
    assert "inference_allowed_mirroring_axes [0, 1]" in settled("auto").words
    assert settled("auto", ("background", "LeftParotid")).axes == (0, 1)
    assert settled("auto", ("background", "node")).axes == (0, 1, 2)
    assert not settled("auto", ("node",)).words
    assert settled("all").axes == (0, 1, 2)
    assert "not told apart" in settled("all").words
    assert settled("none").axes is None
    assert settled("y,z").axes == (0, 1)
    assert settled("x").axes == (2,)
    swapped = settled("swap")
    assert swapped.axes == (0, 1)
    assert swapped.swap == MirrorSwap(2, ((1, 2),))
    assert swap_of_plans(swapped.in_plans(PLAIN)) == swapped.swap
    assert SWAP not in settled("auto").in_plans(swapped.in_plans(PLAIN))
    assert settle_mirroring("auto", None, PLAIN, SIDED).axes is None
    assert "Parotid_L, Parotid_R" in mirrored_sides(PLAIN, (0, 1, 2), SIDED)
    assert mirrored_sides(PLAIN, (0, 1), SIDED) == mirrored_sides(PLAIN, (0, 1, 2), ("node",)) == ""
    for outputs in (("background", "node"), (*SIDED, "Eye_L")):
        with pytest.raises(ConfigError, match="Use --mirror auto"):
            settled("swap", outputs)


@pytest.mark.parametrize("text", ["axes", "x,x", "0,1", "", "lr"])
def test_other_words_are_refused(text: str):
    with pytest.raises(ConfigError, match="Use auto, all, none, swap"):
        require_mirror(text)


@pytest.mark.parametrize("entry", [1, {"axis": 3, "outputs": []}, {"axis": 2, "outputs": [[1, 1]]}, {"axis": "2"}])
def test_an_entry_of_strange_plans_is_refused(entry: object):
    with pytest.raises(ModelError, match="mirror_swap"):
        swap_of_plans({SWAP: entry})


def test_a_mirror_that_names_nothing_is_no_part_of_a_recipes_identity():
    assert "mirror" not in Recipe().identity()
    assert Recipe(mirror="Z,y").identity()["mirror"] == "y,z"


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("regions", [(), ((1,), (2,), (1, 2))])
def test_a_body_with_a_label_a_side_has_them_on_these_sides_however_it_is_mirrored(axis: int, regions):
    shape = (8, 8, 8)
    along = torch.from_numpy(np.indices(shape)[axis])
    left = along < 4
    labels = torch.where(left, 1, 2).to(torch.int16)
    locations = {n: np.argwhere(labels[None].numpy() == n) for n in (1, 2)}
    shot = PreparedCase(
        name="a",
        image=(along - 3.5).float()[None],
        labels=labels,
        locations=locations,
        unlabelled=() if regions else (1,),
    )
    pairs = ((0, 1),) if regions else ((1, 2),)
    settings = AugmentationSettings(
        patch=shape,
        box=shape,
        rates=TransformRates.none(mirroring=0.5),
        foreground=0.0,
        regions=regions,
        swap=MirrorSwap(axis, pairs),
    )
    batches, plain = (AugmentedBatches([shot], each, 4, 0) for each in (settings, replace(settings, swap=None)))
    exchanged = 0
    for i in range(8):
        batch, other = batches[i], plain[i]
        torch.testing.assert_close(batch["data"], other["data"], rtol=0, atol=0)  # the same draws
        for sample in range(4):
            target = batch["target"][sample]
            if regions:
                assert torch.equal(target[0], left)
                assert torch.equal(target[1], ~left)
                assert target[2].all()
            else:
                assert torch.equal(target[0], labels)
                mirrored = not torch.equal(other["target"][sample], batch["target"][sample])
                assert batch["unlabelled"][sample] == ((2,) if mirrored else (1,))
            exchanged += not torch.equal(other["target"][sample], target)
    assert 4 < exchanged < 28


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_average_over_mirrored_copies_is_that_of_the_mirrored_scan_with_sides_exchanged(axis: int):
    torch.manual_seed(0)
    network, swap = torch.nn.Conv3d(1, 4, 3, padding=1).eval(), MirrorSwap(axis, ((1, 2),))
    tile = torch.randn(1, 1, 5, 6, 7)
    with torch.no_grad():
        forward = TileForward(network, mirrorings((0, 1, 2)), torch.device("cpu"), 1, False, swap=swap)
        one, other = forward(tile), forward(tile.flip(axis + 2)).flip(axis + 2)
        plain = replace(forward, swap=None)(tile)
    torch.testing.assert_close(one, other[:, [0, 2, 1, 3]])
    assert not torch.allclose(one, other)
    assert not torch.allclose(one, plain)


def test_a_mirrored_loss_is_that_of_the_mirrored_logits_with_sides_exchanged():
    torch.manual_seed(1)
    swap, logits = MirrorSwap(2, ((1, 2),)), torch.randn(2, 4, 4, 4, 4)
    target = torch.randint(0, 4, (2, 4, 4, 4))
    one = torch.nn.functional.cross_entropy(logits, target)
    other = torch.nn.functional.cross_entropy(swap.channels(logits.flip(-1)), swap.labels(target.flip(-1)))
    torch.testing.assert_close(one, other)


def write_sided(root: Path, cases: int, seed: int = 0) -> Path:
    """Two equal balls, one to each side of the patient, and a bright rod in front of the left one only."""
    z, y, x = np.indices(SHAPE)
    for case in range(cases):
        random = np.random.default_rng(seed + case)
        at = np.array([10, 14, 14]) + random.uniform(-1.5, 1.5, 3)
        mask = np.zeros(SHAPE, np.uint8)
        for value, side in ((1, 7), (2, -7)):  # LPS: x grows to the left
            mask[(z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2] - side) ** 2 < 3.5**2] = value
        rod = (abs(y - at[1] + 6) < 2) & (abs(x - at[2] - 7) < 3)
        image = random.normal(0, 12, SHAPE) + 80.0 * (mask > 0) + 140.0 * rod
        write_image(root / "imagesTr" / f"case_{case}_0000.nii.gz", image.astype(np.int16))
        write_image(root / "labelsTr" / f"case_{case}.nii.gz", mask)
    labels = {"background": 0, "Parotid_L": 1, "Parotid_R": 2}
    described = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": cases, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(described))
    return root


class Lines(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def stage(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    """Data, and a base that was mirrored along all axes although its labels name sides."""
    folder = tmp_path_factory.mktemp("sided")
    (folder / "plans.json").write_text(json.dumps(small_plans()))
    data = write_sided(folder / "data", 3)
    settings = PretrainSettings(plans=folder / "plans.json", iterations=4, mirroring=False, mirror="all")
    base = pretrain(data, folder / "base", settings, device="cpu")
    return folder, data, base


def test_runs_leave_the_axis_out_or_exchange_sides_and_stock_nnunet_predicts_alike(trained):
    folder, data, base = trained
    assert read_model(base.model).first.mirroring_axes == (0, 1, 2)
    images = [image_files(data / "imagesTr")[0]]
    identities = set()
    for option, swap in (("auto", None), ("swap", MirrorSwap(2, ((1, 2),)))):
        lines, recipe = Lines(), Recipe(shots=2, iterations=3, mirror=option, mirroring=False)
        planned = plan(data, base.folder, recipe, progress=lines)
        assert any("so it may take one side for the other" in line for line in lines.lines)
        assert "inference_allowed_mirroring_axes [0, 1]" in planned.mirror
        identities.add(planned.identity)
        run = finetune(planned, folder / option, device="cpu", workers=0)
        model = read_model(run.model)
        assert model.first.mirroring_axes == (0, 1)
        assert swap_of_plans(model.plans) == swap
        card = json.loads((folder / option / "adapter.json").read_text())
        assert card["mirroring_axes"] == [0, 1]
        assert (SWAP in card["plans"]) == (swap is not None)
        ours = Predictor(model, exact=True)
        found = ours.run(ours.prepare(images)).mask
        theirs = stock(model, images)[0]
        if swap is None:
            np.testing.assert_array_equal(found, theirs)
        else:  # without the copies that stock nnU-Net cannot exchange it is stock nnU-Net's
            ours._axes, ours._swap = (0, 1), None
            np.testing.assert_array_equal(ours.run(ours.prepare(images)).mask, theirs)
    assert len(identities) == 2


def test_pretraining_says_and_leaves_out_the_axis(trained):
    folder, data, _ = trained
    settings, lines = PretrainSettings(plans=folder / "plans.json", iterations=1, mirroring=False), Lines()
    base = pretrain(data, folder / "other", settings, device="cpu", progress=lines)
    assert read_model(base.model).first.mirroring_axes == (0, 1)
    assert any("labels name sides (Parotid_L/Parotid_R)" in line for line in lines.lines)


@pytest.mark.parametrize(("patch", "axes", "kept"), [((8, 8, 8), (0, 1, 2), (0, 1)), ((8, 8), (0, 1), (0,))])
def test_named_trainers_leave_it_out(monkeypatch: pytest.MonkeyPatch, patch, axes, kept):
    monkeypatch.setattr(
        nnUNetTrainer, "configure_rotation_dummyDA_mirroring_and_inital_patch_size", lambda _: (0, 0, 0, axes)
    )
    said: list[str] = []
    for labels, mirror, wanted in ((SIDED, "auto", kept), (SIDED, "all", axes), (("background", "node"), "auto", axes)):
        trainer = NamedTrainer.__new__(NamedTrainer)
        trainer.configuration_manager = SimpleNamespace(patch_size=patch)
        trainer.plans_manager = SimpleNamespace(plans={"transpose_forward": [0, 1, 2]})
        trainer.dataset_json = {"labels": {name: n for n, name in enumerate(labels)}}
        trainer.mirror, trainer.print_to_log_file = mirror, said.append
        assert trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[3] == wanted
        assert trainer.inference_allowed_mirroring_axes == wanted
    assert len(said) == 2
    assert "taken as LPS" in said[0]


def test_what_a_base_leaves_out_stays_so_and_is_said():
    merged = ("background", "Parotid", "cord")
    stays = settle_mirroring("auto", (0, 1), PLAIN, merged)
    assert stays.axes == (0, 1)
    assert "stays so though the labels name no sides" in stays.words
    assert settle_mirroring("x,y,z", (0, 1), PLAIN, merged).axes == (0, 1, 2)  # what the line advises
    assert settle_mirroring("auto", None, PLAIN, merged).words == ""
    swapped = PLAIN | {SWAP: {"axis": 2, "outputs": [[1, 2]]}}
    dropped = settle_mirroring("auto", (0, 1), swapped, SIDED)
    assert dropped.swap is None
    assert "--mirror swap keeps it" in dropped.words
    assert "stays so" in settle_mirroring("auto", (0, 1), swapped, merged).words
    hearts = settle_mirroring("swap", (0, 1, 2), PLAIN, ("background", "left_atrium", "right_atrium"))
    assert "are no mirror images of each other" in hearts.words
    assert "mirror images" not in settle_mirroring("swap", (0, 1, 2), PLAIN, SIDED).words


def test_a_model_that_tells_sides_apart_by_their_shape_is_not_suspected():
    assert mirrored_sides(PLAIN, (0, 1, 2), ("left_atrium", "right_atrium", "LV")) == ""
    assert "lateral" in mirrored_sides(PLAIN, (0, 1, 2), ("left_lateral_ventricle", "right_lateral_ventricle"))
    assert settle_mirroring("auto", (0, 1, 2), PLAIN, ("background", "left_atrium")).axes == (0, 1)


@pytest.mark.parametrize(
    ("degrees", "said"), [(0, False), (29, False), (33, True), (45, True), (61, False), (90, False)]
)
def test_oblique_scans_are_named(tmp_path: Path, degrees: float, said: bool):
    turn = np.radians(degrees)
    direction = (np.cos(turn), -np.sin(turn), 0.0, np.sin(turn), np.cos(turn), 0.0, 0.0, 0.0, 1.0)
    write_volume(tmp_path / "a.nii.gz", np.zeros((4, 5, 6), np.int16), Grid((4, 5, 6), (1, 1, 1), (0, 0, 0), direction))
    words = oblique_words([Case("a", (tmp_path / "a.nii.gz",))])
    assert bool(words) == said
    assert not said or f"up to {min(degrees, 90 - degrees)} degrees off the axes of a" in words


@pytest.mark.parametrize("regions", [(), ((1, 3), (2, 4), (1, 2, 3, 4))])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_nnunets_augmentation_exchanges_sides_where_it_flips_them(axis: int, regions):
    shape, swap = (8, 8, 8), MirrorSwap(axis, ((0, 1),) if regions else ((1, 2), (3, 4)))
    made = nnUNetTrainer.get_training_transforms(
        shape, 0.0, [[1, 1, 1], [0.5, 0.5, 0.5]], (0, 1, 2), False, regions=list(regions) or None
    )
    kept = [each for each in made.transforms if not isinstance(each, RandomTransform | SpatialTransform)]
    along = torch.from_numpy(np.indices(shape)[axis])
    other = torch.from_numpy(np.indices(shape)[(axis + 1) % 3])
    left, front = along < 4, other < 4
    labels = torch.where(left, 1, 2) + 2 * front
    flipped = 0
    for seed in range(16):
        torch.manual_seed(seed)
        image = torch.stack([along - 3.5, other - 3.5]).float()
        content = {"image": image, "segmentation": labels[None].to(torch.int16)}
        for each in exchanging(kept, swap):
            content = each(**content)
        target, found = content["segmentation"][0], content["image"]
        if regions:
            assert torch.equal(target[0].bool(), left)
            assert torch.equal(target[1].bool(), ~left)
            assert target[2].all()
        else:
            assert torch.equal(target[0].long(), torch.where(left, 1, 2) + 2 * (found[1] < 0))
        assert content["sides_exchanged"] == (not torch.equal(found[0] < 0, left))
        flipped += bool(content["sides_exchanged"])
    assert 2 < flipped < 14


def test_named_trainers_exchange_sides_of_volumes_alone():
    trainer = NamedTrainer.__new__(NamedTrainer)
    trainer.configuration_manager = SimpleNamespace(patch_size=(8, 8, 8))
    trainer.plans_manager = SimpleNamespace(plans=PLAIN)
    trainer.dataset_json = {"labels": {"background": 0, "cord": 3, "Parotid_R": 1, "Parotid_L": 2}}  # values decide
    trainer.mirror, trainer.is_cascaded, trainer.configuration_name = "swap", False, "3d_fullres"
    assert trainer.settled_mirroring((0, 1, 2)).swap == MirrorSwap(2, ((2, 1),))
    for change in ({"is_cascaded": True}, {"configuration_manager": SimpleNamespace(patch_size=(8, 8))}):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in change.items():
                patch.setattr(trainer, name, value)
            with pytest.raises(ConfigError, match="Use auto"):
                trainer.settled_mirroring((0, 1, 2))
