"""``phantom-neck``, the base that the package brings: read where it lies, never written, as its card says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import lnsegfm
from lnsegfm.datasets.phantom import preset, write_dataset
from lnsegfm.errors import ConfigError
from lnsegfm.imaging.files import read_mask
from lnsegfm.models.install import install
from lnsegfm.models.model_folder import read_model
from lnsegfm.registry.home import BUILT_IN
from lnsegfm.registry.home import home as models_home
from lnsegfm.registry.stored_model import read_stored, verify
from lnsegfm.storage import sha256

NAME = "phantom-neck"
HELD_OUT_SEED = 2000  # of benchmarks/phantom_neck.py


def contents() -> dict[str, tuple[str, int]]:
    """Hash and time of every file of the built-in models."""
    files = (file for file in BUILT_IN.rglob("*") if file.is_file())
    return {str(file): (sha256(file), file.stat().st_mtime_ns) for file in files}


@pytest.fixture
def untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is written into the package, nor into the folder of stored models."""
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    before = contents()
    yield
    assert contents() == before
    assert not (models_home() / "models").exists()


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_dataset(folder, cases=3, domain=preset("base"), seed=HELD_OUT_SEED)
    return folder


def test_it_is_as_its_card_says():
    stored = read_stored(BUILT_IN / NAME)
    assert verify(BUILT_IN / NAME) == ()
    assert stored.weights_sha256 == tuple(fold.weights_sha256 for fold in read_model(Path(NAME)).folds)
    said = f"{stored.card.title} {stored.card.task} {stored.card.licence}"
    assert all(words in said for words in ("not for clinical use", "analytic phantoms", "no patient", "Apache-2.0"))
    measured = json.loads((Path(__file__).parents[2] / "results" / "phantom_neck.json").read_text())
    assert measured["figures"] == [figure.as_json() for figure in stored.card.figures]
    assert (measured["weights_sha256"],) == stored.weights_sha256


def test_its_page_has_the_figures_of_its_card():
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    figures = {figure.what: figure.value for figure in read_stored(BUILT_IN / NAME).card.figures}
    for domain in ("base", "near", "far"):
        dice = figures[f"mean Dice of lymph_node, 12 phantoms of the domain {domain} held out"]
        assert f"| `{domain}` | {dice} |" in page


def test_it_is_small():
    assert max(file.stat().st_size for file in BUILT_IN.rglob("*") if file.is_file()) < 1_000_000


def test_its_weights_are_single_precision_and_nothing_is_said_of_it():
    model = read_model(Path(NAME))
    assert {tensor.dtype for tensor in model.first.weights.values()} == {torch.float32}
    assert all(torch.equal(tensor, tensor.half().float()) for tensor in model.first.weights.values())
    assert (model.notes, model.axes, model.folder) == ((), "LPS", BUILT_IN / NAME)


def test_it_finds_nodes_of_a_phantom_that_it_has_not_seen(phantoms, untouched):
    session = lnsegfm.load(NAME, mirroring=False)
    prediction = session.predict(phantoms / "imagesTr" / "phantom_neck_000_0000.nii.gz")
    reference, _ = read_mask(phantoms / "labelsTr" / "phantom_neck_000.nii.gz")
    found, there = prediction.array == 1, reference == 1
    assert 2 * np.sum(found & there) / (found.sum() + there.sum()) > 0.9


def test_finetune_and_predict_by_its_name(phantoms, untouched, lnsegfm_here, tmp_path):
    quick = ("--iterations", 2, "--no-mirroring", "--device", "cpu", "--workers", 0)
    done = lnsegfm_here("finetune", phantoms, "--model", NAME, "--shots", 2, "--out", "run", *quick)
    assert done.returncode == 0, done.stderr
    base = json.loads((tmp_path / "run" / "run.json").read_text())["base"]
    assert base["licence"].startswith("Apache-2.0")
    again = lnsegfm_here("adapter", "apply", NAME, "run", "--out", "again")
    assert again.returncode == 0, again.stderr
    assert read_model(tmp_path / "again").first.weights_sha256 == read_model(tmp_path / "run").first.weights_sha256


def test_its_name_is_taken(untouched):
    with pytest.raises(ConfigError, match="the package brings a model of that name"):
        install(BUILT_IN / NAME, NAME)
