from __future__ import annotations

import contextlib
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lnsegfm.errors import LnSegFmError, ModelError, UnsafeFile
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.weights.checkpoint import Checkpoint, load_safely, read_checkpoint, save, write_checkpoint
from lnsegfm.weights.state import weights_hash
from tests.scenes import small_plans

DATASET_JSON = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "node": 1},
    "numTraining": 1,
    "file_ending": ".nii.gz",
}


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    start = Checkpoint({}, "3d_fullres", small_plans(), DATASET_JSON, "nnUNetTrainer", (0, 1, 2))
    weights = build_network(start, deep_supervision=True).state_dict()
    return Checkpoint(weights, "3d_fullres", start.plans, DATASET_JSON, "nnUNetTrainer", (0, 1, 2))


@pytest.fixture
def file(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "checkpoint_final.pth", checkpoint)
    return tmp_path / "checkpoint_final.pth"


def rename_in_pickle(file: Path, old: bytes, new: bytes) -> None:
    with zipfile.ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, part in content.items():
            assert old in part or not name.endswith("data.pkl")
            archive.writestr(name, part.replace(old, new) if name.endswith("data.pkl") else part)


@pytest.mark.parametrize("numpy", [1, 2])
def test_what_nnunet_itself_saves_is_read(tmp_path, monkeypatch, numpy):
    """With a log of NumPy scalars (of either NumPy's name), an optimizer that has stepped, and a device in it."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module

    monkeypatch.setattr(module, "infer_dataset_class", lambda _: None)  # there are no preprocessed scans
    plans = small_plans() | {"continue_training": False}
    trainer = module.nnUNetTrainer(plans, "3d_fullres", 0, DATASET_JSON, torch.device("cpu"))
    monkeypatch.setattr(trainer, "_do_i_compile", lambda: False)
    trainer.initialize()
    patch = torch.randn(1, 1, 16, 16, 16)
    sum(output.square().mean() for output in trainer.network(patch)).backward()
    trainer.optimizer.step()
    for key, value in (("train_losses", np.float32(-0.5)), ("ema_fg_dice", np.float64(0.25)), ("lrs", 0.01)):
        trainer.logger.log(key, value, 0)
    trainer.inference_allowed_mirroring_axes = (0, 1, 2)  # known once its data loaders are made
    trainer._best_ema = np.float64(0.25)
    trainer.save_checkpoint(str(tmp_path / "checkpoint_final.pth"))

    installed = int(np.__version__.partition(".")[0])
    if numpy != installed:
        names = {1: b"numpy.core.", 2: b"numpy._core."}
        rename_in_pickle(tmp_path / "checkpoint_final.pth", names[installed], names[numpy])

    found = read_checkpoint(tmp_path / "checkpoint_final.pth")

    assert weights_hash(found.weights) == weights_hash(trainer.network.state_dict())
    assert (found.configuration, found.trainer_name) == ("3d_fullres", "nnUNetTrainer")
    assert found.mirroring_axes == (0, 1, 2)
    assert found.dataset_json == DATASET_JSON
    assert found.plans["configurations"] == plans["configurations"]


def test_what_is_written_is_read_by_us_and_by_stock(file, checkpoint):
    ours = read_checkpoint(file)
    stock = torch.load(file, map_location="cpu", weights_only=False)  # as nnUNetPredictor and load_checkpoint do

    assert weights_hash(ours.weights) == weights_hash(checkpoint.weights) == weights_hash(stock["network_weights"])
    assert list(ours.weights) == list(checkpoint.weights)
    assert (ours.plans, ours.dataset_json) == (checkpoint.plans, DATASET_JSON)
    assert stock["trainer_name"] == "nnUNetTrainer"
    assert stock["init_args"]["configuration"] == "3d_fullres"
    assert stock["inference_allowed_mirroring_axes"] == (0, 1, 2)
    assert {"optimizer_state", "grad_scaler_state", "logging", "_best_ema", "current_epoch"} <= set(stock)


def test_equal_content_gives_equal_bytes_whatever_the_name(file, checkpoint, tmp_path):
    write_checkpoint(tmp_path / "another" / "name.bin", checkpoint)
    assert (tmp_path / "another" / "name.bin").read_bytes() == file.read_bytes()

    changed = {name: tensor.clone() for name, tensor in checkpoint.weights.items()}
    next(iter(changed.values())).view(-1)[0] += 1
    save(tmp_path / "a.pth", changed)
    save(tmp_path / "b.pth", dict(checkpoint.weights))
    assert (tmp_path / "a.pth").read_bytes() != (tmp_path / "b.pth").read_bytes()
    assert not list(tmp_path.rglob(".partial-*"))


class Call:
    """A pickle that calls something while it is read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def hide_in_weights(content: Any, path: Path) -> None:
    torch.save({"network_weights": {"a": torch.zeros(2), "b": content}, "init_args": {}}, path)


WAYS_TO_HIDE = {
    "in the weights": hide_in_weights,
    "alone": torch.save,
    "newer pickle": lambda content, path: torch.save(content, path, pickle_protocol=4),
    "torch before 1.6": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    "bare pickle": lambda content, path: path.write_bytes(pickle.dumps(content)),
    "bare old pickle": lambda content, path: path.write_bytes(pickle.dumps(content, protocol=0)),
}


@pytest.mark.parametrize("way", WAYS_TO_HIDE)
@pytest.mark.parametrize(("function", "named"), [(os.system, f"{os.name}.system"), (eval, "eval")])
def test_a_pickle_that_runs_something_is_refused_by_name_and_nothing_runs(tmp_path, way, function, named):
    canary, file = tmp_path / "canary", tmp_path / "checkpoint_final.pth"
    command = f"touch {canary}" if function is os.system else f"open({str(canary)!r}, 'w')"
    WAYS_TO_HIDE[way](Call(function, command), file)

    with pytest.raises(UnsafeFile, match=f"{named} while it is read") as refused:
        read_checkpoint(file)

    assert str(refused.value).startswith(f"{file}: ")
    assert "\n" not in str(refused.value)
    assert not canary.exists()
    if way in ("alone", "bare pickle"):  # the canary does sing when such a file is opened as stock does
        torch.load(file, weights_only=False) if way == "alone" else pickle.loads(file.read_bytes())
        assert canary.exists()


def halved(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (halved, "cut short or damaged. Copy it again."),
        (lambda content: content[:-1], "cut short or damaged. Copy it again."),
        (lambda _: b"", "it is empty. Copy it again."),
        (lambda content: b"XXXX" + content[4:], "torch.save did not write it"),
        (lambda _: b"PK\x03\x04" + b"junk" * 100, "cut short or damaged"),
        (lambda _: b"learning rate: 0.01\nepochs: 3\n", "torch.save did not write it"),
    ],
    ids=["half", "last byte", "empty", "magic", "zip of nothing", "text"],
)
def test_a_file_that_is_no_checkpoint_is_one_line_that_names_it(file, damage, said):
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ModelError) as refused:
        read_checkpoint(file)
    assert str(refused.value).startswith(f"{file}: ")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "weights_only" not in str(refused.value)  # torch's own advice is to run what is in the file


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"a": torch.zeros(2)}, "'init_args' is missing"),
        ([1, 2], "it is no dictionary"),
        (torch.zeros(3), "it is no dictionary"),
        ("text", "it is no dictionary"),
        ({"network_weights": {}, "init_args": None}, "it is no dictionary"),
        ({"network_weights": {"a": 1}}, "another type"),
        ({"network_weights": torch.zeros(2)}, "another type"),
        ({"network_weights": {}, "trainer_name": ["os"]}, "another type"),
        ({"network_weights": {}, "inference_allowed_mirroring_axes": 3}, "it is no dictionary"),
    ],
)
def test_other_content_is_no_checkpoint(tmp_path, content, said):
    arguments = {"configuration": "3d_fullres", "plans": {}, "dataset_json": {}}
    if isinstance(content, dict) and "network_weights" in content:
        content = {"init_args": arguments, "trainer_name": "nnUNetTrainer"} | content
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ModelError, match=f"a.pth: not an nnU-Net checkpoint .*{said}"):
        read_checkpoint(tmp_path / "a.pth")


def test_no_damage_raises_anything_but_the_projects_errors(file):
    """Cut anywhere, or with some bytes changed; what only changes a weight may be read."""
    content, random = file.read_bytes(), np.random.default_rng(0)
    table = [n for n in range(content.find(b"data.pkl"), len(content)) if n < 6000 or n > len(content) - 6000]
    for _ in range(150):
        damaged = bytearray(content)
        for place in random.choice(table, size=random.integers(1, 8)):
            damaged[place] = random.integers(256)
        file.write_bytes(damaged if random.random() < 0.8 else damaged[: random.integers(len(damaged))])
        with contextlib.suppress(LnSegFmError):
            read_checkpoint(file)


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(ModelError, match=f"{path}: no such file"):
            load_safely(path)
