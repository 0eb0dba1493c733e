"""Training on regions: targets and loss are nnU-Net's, and a run goes from a base of regions to its evidence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from scipy import ndimage

from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.imaging.files import image_files, read_mask, write_mask
from lnsegfm.models.model_folder import read_model
from lnsegfm.transforms.augmentation.augmented_batches import as_regions, downsample_labels
from lnsegfm.workflows.finetune import finetune
from lnsegfm.workflows.finetune_plan import plan
from lnsegfm.workflows.pretrain import pretrain
from lnsegfm.workflows.pretrain_plan import PretrainSettings
from tests.prediction.test_predictor import NEAR, stock
from tests.prediction.test_regions import NESTED
from tests.scenes import small_plans, write_scenes

pytestmark = pytest.mark.usefixtures("one_thread")


def nested(folder: Path, cases: int, seed: int, ignore: int | None = None) -> Path:
    """Balls with a core of their own value."""
    write_scenes(folder, cases, seed=seed)
    for file in image_files(folder / "labelsTr"):
        mask, grid = read_mask(file)
        mask = np.where(ndimage.binary_erosion(mask > 0), 2, mask).astype(np.uint8)
        if ignore is not None:
            mask[:2] = ignore
        write_mask(file, mask, grid)
    described = json.loads((folder / "dataset.json").read_text())
    described |= {"labels": NESTED | ({"ignore": ignore} if ignore else {}), "regions_class_order": [1, 2]}
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of regions, pretrained."""
    folder = tmp_path_factory.mktemp("regions")
    (folder / "plans.json").write_text(json.dumps(small_plans()))
    training = PretrainSettings(plans=folder / "plans.json", iterations=10, held_out=1, mirroring=False)
    return pretrain(nested(folder / "source", 4, 0), folder / "base", training, device="cpu").folder


def test_targets_are_those_of_nnunet():
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (2, 1, 8, 12, 10)).astype(np.int16))
    regions, scales = ((1, 2), (2,), (3,)), [[1.0, 1.0, 1.0], [0.5, 0.5, 0.5]]
    found = downsample_labels(as_regions(labels, regions), scales)
    for sample in range(2):
        one = {"segmentation": labels[sample]}
        one = ConvertSegmentationToRegionsTransform(regions=[(1, 2), 2, 3], channel_in_seg=0)(**one)
        one = DownsampleSegForDSTransform(ds_scales=scales)(**one)
        for ours, theirs in zip(found, one["segmentation"], strict=True):
            assert torch.equal(ours[sample].float(), theirs.float())


@pytest.mark.parametrize("method", ["dgst", "lora", "full"])
def test_five_shots_from_a_base_of_regions(base, world, tmp_path, method):
    clinic = nested(tmp_path / "clinic", 6, 50)
    planned = plan(clinic, base, world.recipe(method, shots=5, iterations=4))
    assert planned.transfer.labels_kept == ("whole", "core")
    assert not planned.transfer.fresh
    done = finetune(planned, tmp_path / "run", device="cpu", workers=0)

    adapted = read_model(tmp_path / "run")
    assert adapted.dataset_json["regions_class_order"] == [1, 2]
    assert adapted.labels.covered == {"whole": (1, 2), "core": (2,)}
    assert adapted.weights_sha256 != read_model(base).weights_sha256
    losses = json.loads((tmp_path / "run" / "loss_history.json").read_text())
    assert np.isfinite(losses["losses"] if "losses" in losses else losses["curve"]).all()
    (held_out,) = done.record["held_out"]
    scan = clinic / "imagesTr" / f"{held_out}_0000.nii.gz"
    expected, likely = stock(adapted, [scan], mirroring=False, single=True)
    predicted = read_mask(tmp_path / "run" / "predictions" / "adapted" / f"{held_out}.nii.gz")[0]
    near = (np.abs(likely - 0.5) < NEAR).any(0)
    np.testing.assert_array_equal(predicted[~near], expected[~near])
    assert predicted.any()
    after = Evaluation.from_json(done.record["result"]["adapted"])
    reference = read_mask(clinic / "labelsTr" / f"{held_out}.nii.gz")[0]
    for name, values in {"whole": (1, 2), "core": (2,)}.items():
        both = [np.isin(array, values) for array in (predicted, reference)]
        dice = 2 * np.count_nonzero(both[0] & both[1]) / sum(map(np.count_nonzero, both))
        assert after.case(held_out).labels[name].dice == pytest.approx(dice)
    assert (tmp_path / "run" / "report.html").is_file()


def test_between_regions_and_classes_the_head_alone_is_fresh(base, world, tmp_path):
    of_regions = plan(nested(tmp_path / "clinic", 4, 50, ignore=3), world.base, world.recipe("full", shots=2))
    assert of_regions.transfer.labels_new == ("whole", "core")
    classes = plan(world.clinic, base, world.recipe("full", shots=2))
    assert classes.transfer.labels_new == ("node",)
    for planned in (of_regions, classes):
        assert planned.transfer.share == 1
        done = finetune(planned, tmp_path / planned.identity, device="cpu", workers=0)
        assert done.record["result"]["verdict"]
