"""Files made to do harm, or broken: ``lnsegfm models import`` refuses them in one line; nothing runs, nothing stays."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lnsegfm.errors import UnsafeFile
from lnsegfm.weights.checkpoint import load_safely
from tests.models.importing.producers import DATASET, Trained, exported_by_nnunet
from tests.weights.test_checkpoint import Call

INNER = f"{DATASET}/nnUNetTrainer__nnUNetPlans__3d_fullres"
Make = Callable[[Trained, Path], Path]
HOSTILE: dict[str, tuple[Make, str]] = {}


def hostile(name: str, said: str) -> Callable[[Make], Make]:
    """A file that is refused, and what is said of it."""

    def note(make: Make) -> Make:
        HOSTILE[name] = (make, said)
        return make

    return note


def runs(place: Path) -> Call:
    """A pickle that writes the canary when it is read as stock does."""
    return Call(os.system, f"touch {place / 'canary'}")


RUNS = f"it asks to run {os.name}.system while it is read"


@hostile("pickle that runs code", RUNS)
def _(trained: Trained, place: Path) -> Path:
    torch.save({"state_dict": {"a": torch.zeros(2), "b": runs(place)}}, place / "net.pt")
    return place / "net.pt"


@hostile("the same, of torch before 1.6", RUNS)
def _(trained: Trained, place: Path) -> Path:
    torch.save({"network_weights": runs(place)}, place / "net.pth", _use_new_zipfile_serialization=False)
    return place / "net.pth"


@hostile("a bare pickle", RUNS)
def _(trained: Trained, place: Path) -> Path:
    (place / "net.pth").write_bytes(pickle.dumps(runs(place)))
    return place / "net.pth"


def copied(trained: Trained, place: Path) -> Path:
    """The model's folder, to be spoilt."""
    return Path(shutil.copytree(trained.folder, place / INNER))


def with_canary(trained: Trained, place: Path) -> Path:
    folder = copied(trained, place)
    content = torch.load(trained.checkpoint, weights_only=False) | {"logging": runs(place)}
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")
    return folder


@hostile("in a model folder", RUNS)
def _(trained: Trained, place: Path) -> Path:
    return with_canary(trained, place)


@hostile("in a zip", f"model.zip: {INNER}/fold_0/checkpoint_final.pth: {RUNS}")
def _(trained: Trained, place: Path) -> Path:
    with_canary(trained, place)
    shutil.make_archive(str(place / "model"), "zip", place, DATASET)
    return place / "model.zip"


@hostile("in a tar.gz", f"model.tar.gz: {INNER}/fold_0/checkpoint_final.pth: {RUNS}")
def _(trained: Trained, place: Path) -> Path:
    with_canary(trained, place)
    shutil.make_archive(str(place / "model"), "gztar", place, DATASET)
    return place / "model.tar.gz"


@hostile("in an nnssl checkpoint", RUNS)
def _(trained: Trained, place: Path) -> Path:
    torch.save({"network_weights": {}, "nnssl_adaptation_plan": runs(place)}, place / "checkpoint_final.pth")
    return place / "checkpoint_final.pth"


def zip_with(trained: Trained, place: Path, name: str, mode: int = 0o644, content: bytes = b"x") -> Path:
    file = exported_by_nnunet(trained, place / "model.zip")
    with zipfile.ZipFile(file, "a") as archive:
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        archive.writestr(member, content, zipfile.ZIP_DEFLATED)
    return file


@hostile("zip-slip", "leads out of the folder")
def _(trained: Trained, place: Path) -> Path:
    return zip_with(trained, place, "../../../canary")


@hostile("absolute path in a zip", "is an absolute path")
def _(trained: Trained, place: Path) -> Path:
    return zip_with(trained, place, f"{place}/canary")


@hostile("symlink in a zip", "is a link or a device")
def _(trained: Trained, place: Path) -> Path:
    return zip_with(trained, place, f"{INNER}/fold_1", 0o120777, str(place).encode())


def tar_with(trained: Trained, place: Path, member: tarfile.TarInfo) -> Path:
    with tarfile.open(place / "model.tar", "w") as archive:
        archive.add(trained.folder, INNER)
        archive.addfile(member, io.BytesIO(b""))
    return place / "model.tar"


@hostile("symlink in a tar", "is a link, a device or a sparse file")
def _(trained: Trained, place: Path) -> Path:
    member = tarfile.TarInfo(f"{INNER}/fold_1")
    member.type, member.linkname = tarfile.SYMTYPE, str(place)
    return tar_with(trained, place, member)


@hostile("hard link in a tar", "is a link, a device or a sparse file")
def _(trained: Trained, place: Path) -> Path:
    member = tarfile.TarInfo(f"{INNER}/fold_1")
    member.type, member.linkname = tarfile.LNKTYPE, "/etc/passwd"
    return tar_with(trained, place, member)


@hostile("path out of a tar", "leads out of the folder")
def _(trained: Trained, place: Path) -> Path:
    return tar_with(trained, place, tarfile.TarInfo("../../canary"))


@hostile("bomb in a zip", "unpacks to more than 200 times its size")
def _(trained: Trained, place: Path) -> Path:
    return zip_with(trained, place, f"{INNER}/large", content=bytes(300 * 2**20))


@hostile("bomb in a checkpoint", "it would unpack to 100 MiB, from 0.2 MiB")
def _(trained: Trained, place: Path) -> Path:
    torch.save({"a": torch.zeros(4)}, place / "net.pth")
    with zipfile.ZipFile(place / "net.pth") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(place / "net.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr("net/data/1", bytes(100 * 2**20))
        archive.writestr("net/data/2", os.urandom(2**17), zipfile.ZIP_STORED)
    return place / "net.pth"


@hostile("a tensor larger than the memory, of one number", "none of the network's")
def _(trained: Trained, place: Path) -> Path:
    content = torch.load(trained.checkpoint, weights_only=False)
    content["network_weights"]["more"] = torch.zeros(1).expand(2**50)
    torch.save(content, place / "net.pth")
    return place / "net.pth"


@hostile("a network larger than the memory", "tensors differ: ")
def _(trained: Trained, place: Path) -> Path:
    def enlarge(plans: dict[str, Any]) -> None:
        arguments = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
        arguments["features_per_stage"] = [2**20, 2**20, 2**20]

    return with_plans(trained, place, enlarge)


@hostile("a table within itself", "no form of model|not a model in a form that is known")
def _(trained: Trained, place: Path) -> Path:
    content: dict[str, Any] = {"epoch": 1}
    content["state_dict"] = content
    torch.save(content, place / "net.pth")
    return place / "net.pth"


@hostile("truncated checkpoint", "cut short or damaged. Copy it again.")
def _(trained: Trained, place: Path) -> Path:
    content = trained.checkpoint.read_bytes()
    (place / "net.pth").write_bytes(content[: len(content) // 2])
    return place / "net.pth"


@hostile("truncated zip", "damaged, cut short, or not what its first bytes say")
def _(trained: Trained, place: Path) -> Path:
    file = exported_by_nnunet(trained, place / "model.zip")
    file.write_bytes(file.read_bytes()[:-2000])
    return file


@hostile("truncated tar.gz", "damaged, cut short, or not what its first bytes say")
def _(trained: Trained, place: Path) -> Path:
    copied(trained, place)
    shutil.make_archive(str(place / "model"), "gztar", place, DATASET)
    content = (place / "model.tar.gz").read_bytes()
    (place / "model.tar.gz").write_bytes(content[: len(content) // 2])
    return place / "model.tar.gz"


@hostile("wrong magic", "torch.save did not write it")
def _(trained: Trained, place: Path) -> Path:
    (place / "net.pth").write_bytes(b"XXXX" + trained.checkpoint.read_bytes()[4:])
    return place / "net.pth"


@hostile("renamed text", "torch.save did not write it")
def _(trained: Trained, place: Path) -> Path:
    (place / "net.pt").write_text("epochs: 3\nlearning rate: 0.01\n")
    return place / "net.pt"


@hostile("text renamed to a zip", "not a zip or a tar")
def _(trained: Trained, place: Path) -> Path:
    (place / "model.zip").write_text("a model\n")
    return place / "model.zip"


@hostile("empty file", "it is empty")
def _(trained: Trained, place: Path) -> Path:
    (place / "net.pth").write_bytes(b"")
    return place / "net.pth"


def safetensors_with(place: Path, header: bytes, body: bytes, length: int | None = None) -> Path:
    content = struct.pack("<Q", len(header) if length is None else length) + header + body
    (place / "net.safetensors").write_bytes(content)
    return place / "net.safetensors"


@hostile("safetensors whose header lies of sizes", "not a whole safetensors file")
def _(trained: Trained, place: Path) -> Path:
    header = json.dumps({"a": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}).encode()
    return safetensors_with(place, header, bytes(16))


@hostile("safetensors whose header lies of its length", "not a whole safetensors file")
def _(trained: Trained, place: Path) -> Path:
    return safetensors_with(place, b"{}", bytes(16), 2**62)


@hostile("safetensors of overlapping tensors", "not a whole safetensors file")
def _(trained: Trained, place: Path) -> Path:
    both = {name: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} for name in ("a", "b")}
    return safetensors_with(place, json.dumps(both).encode(), bytes(16))


def with_plans(trained: Trained, place: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    folder = copied(trained, place)
    plans = json.loads((folder / "plans.json").read_text())
    change(plans)
    (folder / "plans.json").write_text(json.dumps(plans))
    return folder


@hostile("plans that call os.system", "it wants os.system called")
def _(trained: Trained, place: Path) -> Path:
    def change(plans: dict[str, Any]) -> None:
        plans["configurations"]["3d_fullres"]["architecture"]["network_class_name"] = "os.system"

    return with_plans(trained, place, change)


@hostile("plans that call torch.hub.load", "it wants torch.nn.modules.module.torch.hub.load called")
def _(trained: Trained, place: Path) -> Path:
    def change(plans: dict[str, Any]) -> None:
        arguments = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
        arguments["nonlin"] = "torch.nn.modules.module.torch.hub.load"

    return with_plans(trained, place, change)


@hostile("plans inside a checkpoint that call torch.hub.load", "it wants torch.hub.load called")
def _(trained: Trained, place: Path) -> Path:
    content = torch.load(trained.checkpoint, weights_only=False)
    configuration = content["init_args"]["plans"]["configurations"]["3d_fullres"]
    configuration["architecture"]["arch_kwargs"]["conv_op"] = "torch.hub.load"
    torch.save(content, place / "net.pth")
    return place / "net.pth"


@hostile("another configuration of the plans calls os.system", "it wants os.system called")
def _(trained: Trained, place: Path) -> Path:
    def change(plans: dict[str, Any]) -> None:
        architecture = {"network_class_name": "os.system", "arch_kwargs": {}, "_kw_requires_import": []}
        plans["configurations"]["other"] = {"inherits_from": "3d_fullres", "architecture": architecture}

    return with_plans(trained, place, change)


@hostile("a reader that is none", "it names np, which is none of nnU-Net's own")
def _(trained: Trained, place: Path) -> Path:
    return with_plans(trained, place, lambda plans: plans.update(image_reader_writer="np"))


@hostile("a resampling that is none", "it names sk_resize|it names map_coordinates")
def _(trained: Trained, place: Path) -> Path:
    def change(plans: dict[str, Any]) -> None:
        plans["configurations"]["3d_fullres"]["resampling_fn_data"] = "map_coordinates"

    return with_plans(trained, place, change)


@hostile("plans that inherit in a circle", "not nnU-Net plans")
def _(trained: Trained, place: Path) -> Path:
    return with_plans(trained, place, lambda p: p["configurations"]["3d_fullres"].update(inherits_from="3d_fullres"))


@hostile("wrong hash", "its SHA-256 is ")
def _(trained: Trained, place: Path) -> Path:
    shutil.copy(trained.checkpoint, place / "net.pth")
    card = {"name": "it", "title": "t", "architecture": "nnunet", "task": "t", "licence": "l", "sha256": "0" * 64}
    manifest = place / "home" / "manifests" / "ours.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"format": "lnsegfm.models/1", "models": [card]}))
    return place / "net.pth"


def with_content(trained: Trained, place: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    content = torch.load(trained.checkpoint, weights_only=False)
    change(content)
    torch.save(content, place / "net.pth")
    return place / "net.pth"


@hostile("a trainer's name that no terminal should show", "its trainer ?]0;title? is none of nnU-Net's")
def _(trained: Trained, place: Path) -> Path:
    def change(content: dict[str, Any]) -> None:
        content["trainer_name"] = "\x1b]0;title\x07"
        content["network_weights"]["more"] = torch.zeros(1)

    return with_content(trained, place, change)


@hostile("a configuration's name that leaves the folder", "configuration '../../x': no folder could have that name")
def _(trained: Trained, place: Path) -> Path:
    def change(content: dict[str, Any]) -> None:
        content["init_args"]["configuration"] = "../../x"
        plans = content["init_args"]["plans"]
        plans["configurations"]["../../x"] = plans["configurations"].pop("3d_fullres")

    return with_content(trained, place, change)


@hostile("mirroring along an axis that is none", "its mirroring axes")
def _(trained: Trained, place: Path) -> Path:
    return with_content(trained, place, lambda content: content.update(inference_allowed_mirroring_axes=("os", 7)))


@hostile("a file ending that leaves the folder", "its dataset.json: file_ending '/../../x.nii.gz' is none")
def _(trained: Trained, place: Path) -> Path:
    folder = copied(trained, place)
    description = json.loads((folder / "dataset.json").read_text()) | {"file_ending": "/../../x.nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


@hostile("model.json whose weights lie elsewhere", "not the name of a file")
def _(trained: Trained, place: Path) -> Path:
    fold = {"file": "../../etc/weights.safetensors", "sha256": "0" * 64}
    description = {
        "format": "lnsegfm.export/1",
        "configuration": "3d_fullres",
        "trainer_name": "nnUNetTrainer",
        "mirroring_axes": None,
        "plans": {},
        "dataset_json": {},
        "parts": "all",
        "folds": {"0": fold},
    }
    (place / "model.json").write_text(json.dumps(description))
    return place / "model.json"


@hostile("plans.json that is no JSON", "plans.json: not a JSON file")
def _(trained: Trained, place: Path) -> Path:
    folder = copied(trained, place)
    (folder / "plans.json").write_bytes(pickle.dumps(runs(place)))
    return folder


@hostile("plans.json that is a list", "not what nnU-Net writes")
def _(trained: Trained, place: Path) -> Path:
    folder = copied(trained, place)
    (folder / "plans.json").write_text("[]")
    return folder


@hostile("plans.json that is nested without end", "not a JSON file that anyone would write")
def _(trained: Trained, place: Path) -> Path:
    folder = copied(trained, place)
    (folder / "plans.json").write_text("[" * 50_000 + "]" * 50_000)
    return folder


@hostile("a number without end", "not a JSON file that anyone would write")
def _(trained: Trained, place: Path) -> Path:
    folder = copied(trained, place)
    (folder / "plans.json").write_text('{"a": ' + "9" * 5000 + "}")
    return folder


@hostile("labels that no terminal should show", "not a name for a foreground label")
def _(trained: Trained, place: Path) -> Path:
    folder = copied(trained, place)
    description = json.loads((folder / "dataset.json").read_text())
    description["labels"] = {"background": 0, "no\x1b]0;de\x07": 1}
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_and_nothing_runs_or_stays(name, trained, models, home, tmp_path):
    import re

    make, said = HOSTILE[name]
    file = make(trained, tmp_path)
    before = set(home.rglob("*")) if home.exists() else set()

    result = models("import", file, "--as", "it")

    assert result.returncode == 2, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("lnsegfm: ")]
    assert re.search(said if "|" in said else re.escape(said), result.stderr), result.stderr
    assert str(file) in lines[0]
    assert len(lines) == 1 or name == "a table within itself"
    assert "Traceback" not in result.stderr
    assert ".partial-" not in result.stderr
    assert "\x1b" not in result.stderr
    assert result.stdout == ""
    assert not list(tmp_path.rglob("canary"))
    assert not set(home.rglob("*")) - before if home.exists() else True
    assert not (home / "models").exists()


def test_the_canary_sings_where_it_is_let_in(trained, tmp_path):
    folder = with_canary(trained, tmp_path)
    torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=False)  # as stock nnU-Net does
    assert (tmp_path / "canary").exists()


def test_large_weights_are_no_bomb(tmp_path):
    """A plain checkpoint beyond the spare 64 MiB, and a small one that compresses well."""
    torch.save({"a": torch.zeros(20 * 2**20)}, tmp_path / "large.pth")
    assert load_safely(tmp_path / "large.pth")["a"].numel() == 20 * 2**20
    with zipfile.ZipFile(tmp_path / "large.pth") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(UnsafeFile, match=r"small\.pth: it would unpack to 80 MiB, from 0\.1 MiB"):
        load_safely(tmp_path / "small.pth")
