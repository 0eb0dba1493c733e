"""Stored whole or not at all, under a name of its own, with the terms that come with it."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from lnsegfm.errors import ConfigError, ModelError
from lnsegfm.models import install as module
from lnsegfm.models.install import ImportOptions, install
from lnsegfm.models.model_folder import read_model
from lnsegfm.registry.home import installed
from lnsegfm.registry.manifest import cards
from lnsegfm.registry.model_card import ModelCard
from lnsegfm.registry.stored_model import read_stored, verify
from lnsegfm.storage import sha256
from lnsegfm.weights.state import weights_hash
from tests.models.importing.producers import trained_by_nnunet


def test_a_name_is_taken_once(trained, take, home, tmp_path):
    first = take(trained.folder)
    with pytest.raises(ConfigError, match=r"Model it: there is one of that name\. Choose another name, or say"):
        take(trained.checkpoint)
    assert read_stored(home / "models" / "it") == first

    other = trained_by_nnunet(tmp_path / "other", steps=0, fold=1)
    take(other.folder, replace=True)
    assert weights_hash(read_model(Path("it")).first.weights) == weights_hash(other.weights)
    assert verify(home / "models" / "it") == ()
    assert [path.name for path in (home / "models").iterdir()] == ["it"]


@pytest.mark.parametrize("name", ["../it", "IT", "a/b", "", ".partial-1", "a" * 65])
def test_a_name_that_is_none(name, trained, home):
    with pytest.raises(ConfigError, match="not a plain name"):
        install(trained.folder, name)
    assert not home.exists()


def test_an_import_that_fails_late_leaves_what_was_there(trained, take, home, monkeypatch):
    before = take(trained.folder)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_move", full)
    for name in ("it", "other"):
        with pytest.raises(OSError, match="No space left"):
            install(trained.folder, name, ImportOptions(replace=True))
    assert installed() == ("it", "phantom-neck")
    assert read_stored(home / "models" / "it") == before
    assert [path.name for path in (home / "models").iterdir()] == ["it"]


def test_a_replacement_that_fails_brings_the_old_one_back(trained, take, home, monkeypatch):
    before = take(trained.folder)
    rename = Path.rename

    def once(self: Path, target: Path) -> Path:
        if self.name == "model":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", once)
    with pytest.raises(OSError, match="Input/output"):
        take(trained.folder, replace=True)
    assert read_stored(home / "models" / "it") == before
    assert verify(home / "models" / "it") == ()


def test_what_a_killed_import_left_is_cleared_a_day_later(trained, take, home):
    for name, age in ((".partial-it-old", 90_000), (".partial-it-under-way", 60)):
        (home / "models" / name / "model").mkdir(parents=True)
        then = time.time() - age
        os.utime(home / "models" / name, (then, then))
    take(trained.folder)
    assert sorted(path.name for path in (home / "models").iterdir()) == [".partial-it-under-way", "it"]
    assert installed() == ("it", "phantom-neck")


def test_of_two_imports_under_one_name_the_first_stays(trained, take, home, monkeypatch):
    store = module.store

    def slow(*words: object, **more: object) -> object:
        monkeypatch.setattr(module, "store", store)
        take(trained.checkpoint)  # meanwhile, in another process
        return store(*words, **more)

    monkeypatch.setattr(module, "store", slow)
    with pytest.raises(ConfigError, match="there is one of that name"):
        take(trained.folder)
    assert read_stored(home / "models" / "it").source.file == "checkpoint_final.pth"
    assert [path.name for path in (home / "models").iterdir()] == ["it"]


def test_a_stored_model_of_another_machine_keeps_its_card(trained, take, home, tmp_path):
    first = take(trained.folder, licence="CC0", citation="Us")
    copied = Path(shutil.copytree(home / "models" / "it", tmp_path / "copied"))
    second = take(copied, "again")
    assert (second.card.licence, second.card.citation) == ("CC0", "Us")
    assert second.files == first.files
    (copied / "plans.json").write_text((copied / "plans.json").read_text() + " ")
    with pytest.raises(ModelError, match=r"plans\.json: changed since it was stored"):
        take(copied, "third")


CARD = ModelCard(
    name="other", title="A title", architecture="nnunet", task="nodes", licence="by the card", citation="the card's"
)


def test_the_card_of_the_manifest_goes_with_it(trained, home):
    digest = sha256(trained.checkpoint)
    card = CARD.model_copy(update={"sha256": digest, "bytes": trained.checkpoint.stat().st_size})
    stored = install(trained.checkpoint, "it", card=card)
    assert (stored.card.name, stored.card.title, stored.card.licence) == ("it", "A title", "by the card")
    assert stored.card.labels == {"node": 1}  # which the card left open
    assert stored.notes == ()
    assert stored.source.sha256 == digest == stored.card.sha256
    install(trained.checkpoint, "ours", ImportOptions(licence="agreed", citation="us"), card=card)
    ours = read_stored(home / "models" / "ours").card
    assert (ours.licence, ours.citation) == ("agreed", "us")


def test_a_card_that_says_otherwise_is_noted(trained, home):
    card = CARD.model_copy(update={"architecture": "resenc-l", "labels": {"nodes": 1}, "spacing_mm": (2.0, 1.0, 1.5)})
    stored = install(trained.checkpoint, "it", card=card)
    assert stored.notes == (
        "Its card says architecture resenc-l, its file nnunet: the file's counts.",
        "Its card says labels {'nodes': 1}, its file {'node': 1}: the file's counts.",
    )
    assert (stored.card.architecture, stored.card.labels) == ("nnunet", {"node": 1})


def test_a_card_with_a_hash_wants_that_file(trained, home):
    with pytest.raises(ModelError, match=r"its SHA-256 is [0-9a-f]{64}, but the card of it says 0{64}"):
        install(trained.checkpoint, "it", card=CARD.model_copy(update={"sha256": "0" * 64}))
    with pytest.raises(ModelError, match=r"the card of it names the hash of a file\. Give that file"):
        install(trained.folder, "it", card=CARD.model_copy(update={"sha256": "0" * 64}))
    assert not home.exists()


def test_a_shipped_card_takes_a_file_that_was_downloaded_by_hand(trained, models, home):
    name = next(name for name, card in cards().items() if card.sha256 is None)
    result = models("import", trained.checkpoint, "--as", name)
    assert result.returncode == 0, result.stderr
    stored = read_stored(home / "models" / name)
    assert stored.card.title == cards()[name].title
    assert stored.source.sha256 == sha256(trained.checkpoint)
    assert result.stdout.count(cards()[name].licence) == 1
    assert result.stdout.count(str(cards()[name].citation)) == 1


def test_the_command_says_what_it_recognised_and_under_which_terms(trained, models, home):
    result = models("import", trained.folder, "--as", "it", "--licence", "CC0", "--citation", "Us")
    assert result.returncode == 0, result.stderr
    digest = read_stored(home / "models" / "it").source.sha256
    assert result.stdout.splitlines() == [
        "it: nnU-Net model folder, 3d_fullres, PlainConvUNet, 1 channel, labels node=1",
        "Licence: CC0",
        "Cite: Us",
        f"Stored in {home / 'models' / 'it'}, SHA-256 of the source {digest}",
    ]
    result = models("import", trained.checkpoint, "--as", "two", "--json")
    told = json.loads(result.stdout)
    assert told["folder"] == str(home / "models" / "two")
    assert told["source"]["form"].startswith("nnU-Net checkpoint with plans inside")
    assert told["parts"] == "all"


def test_every_option_reaches_the_import(trained, models, home, tmp_path):
    import torch

    torch.save({"state_dict": dict(trained.weights)}, tmp_path / "net.pt")
    words = ("--plans", trained.folder / "plans.json", "--label", "lymph node=1", "--channel", "CT")
    more = ("--configuration", "3d_fullres", "--patch-size", 16, 24, 32)
    result = models("import", tmp_path / "net.pt", "--as", "it", *words, *more)
    assert result.returncode == 0, result.stderr
    model = read_model(Path("it"))
    assert str(model.labels) == "lymph node=1"
    assert model.plans["configurations"]["3d_fullres"]["patch_size"] == [16, 24, 32]

    from tests.models.importing.test_monai_forms import monai

    torch.save(monai().state_dict(), tmp_path / "monai.pt")
    words = ("--label", "node=1", "--spacing", 2, 1.5, 1.5, "--window", -175, 250)
    result = models("import", tmp_path / "monai.pt", "--as", "swin", *words)
    assert result.returncode == 0, result.stderr
    assert "Note: Its axes are MONAI's (x, y, z)" in result.stdout
    assert read_stored(home / "models" / "swin").card.spacing_mm == (2.0, 1.5, 1.5)
    result = models("import", trained.folder, "--as", "b", "--fold", "0", "--dataset-json", trained.folder / "x.json")
    assert result.returncode == 2
    assert "--dataset-json: " in result.stderr


def test_export_by_the_command(trained, models, home, tmp_path):
    models("import", trained.folder, "--as", "it")
    result = models("export", "it", "--to", "nnunet-zip", "--out", tmp_path / "it.zip")
    assert result.returncode == 0, result.stderr
    assert "nnUNetv2_install_pretrained_model_from_zip" in result.stdout
    result = models("export", "it", "--to", "safetensors", "--out", tmp_path / "it", "--json")
    assert json.loads(result.stdout)["out"] == str(tmp_path / "it")
    result = models("export", "nobody", "--to", "folder", "--out", tmp_path / "no")
    assert result.returncode == 2
    assert result.stderr.count("\n") <= 2
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--fold", "first"), "--fold first: not a fold"),
        (("--spacing", 0, 1, 1), "--spacing 0 1 1: millimetres above 0"),
        (("--window", 250, -175), "--window 250 -175: the first must lie below"),
        (("--patch-size", 0, 1, 1), "--patch-size 0 1 1: numbers of voxels"),
        (("--label", "node"), "not NAME=VALUE"),
    ],
)
def test_options_that_cannot_be(words, said, trained, models, home):
    result = models("import", trained.folder, "--as", "it", *words)
    assert result.returncode == 2
    assert said in result.stderr
    assert not (home / "models").exists()


def test_a_path_that_is_nothing(models, tmp_path, home):
    result = models("import", tmp_path / "none.pth", "--as", "it")
    assert result.returncode == 2
    assert result.stderr == f"lnsegfm: {tmp_path / 'none.pth'}: no such file or folder. Check the path.\n"
    (tmp_path / "empty").mkdir()
    result = models("import", tmp_path / "empty", "--as", "it")
    assert "not a model in a form that is known" in result.stderr
    assert "nnU-Net model folder: no folder in it holds plans.json" in result.stderr
