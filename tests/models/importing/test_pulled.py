"""From a server to a stored model: archives as TotalSegmentator publishes them, on good lines and on bad ones."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lnsegfm.models.model_folder import read_model
from lnsegfm.registry.manifest import FORMAT
from lnsegfm.registry.stored_model import read_stored
from tests.models.importing.producers import Trained
from tests.registry.conftest import card_at
from tests.registry.server import Site, serve

FOLDER = "Dataset900_things_12subj/nnUNetTrainer__nnUNetPlans__3d_fullres"


def archive(trained: Trained, place: Path, *folders: str) -> bytes:
    """A zip with the model in each of the folders."""
    with zipfile.ZipFile(place, "w") as packed:
        for folder in folders:
            for file in sorted(trained.folder.rglob("*")):
                if file.is_file():
                    packed.write(file, f"{folder}/{file.relative_to(trained.folder)}")
    return place.read_bytes()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr("lnsegfm.registry.download.WAITS_S", (0.0, 0.0, 0.0, 0.0))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.delenv("LNSEGFM_MIRROR", raising=False)
    with serve(Site()) as served:
        yield served


@pytest.fixture
def pull(site: Site, models, tmp_path):
    """``models pull things`` by a card without a hash."""
    card = card_at(f"{site.url}/Dataset900_things_12subj.zip", name="things", licence="CC0", axes="RAS")
    (tmp_path / "cards.json").write_text(json.dumps({"format": FORMAT, "models": [card.as_json()]}))
    return lambda *words: models("pull", "things", "--manifest", tmp_path / "cards.json", *words)


def test_a_zip_of_a_data_set_s_folder_over_a_line_that_breaks(trained, site, pull, home, tmp_path):
    content = archive(trained, tmp_path / "a.zip", FOLDER)
    site.files["/Dataset900_things_12subj.zip"], site.drops = content, [len(content) // 2]

    done = pull()

    assert done.returncode == 0, done.stderr
    assert site.wanted == [None, f"bytes={len(content) // 2}-"]
    stored = read_stored(home / "models" / "things")
    assert stored.source.sha256 in done.stderr  # recorded, and shown
    model = read_model(Path("things"))
    assert model.axes == "RAS"
    assert set(model.first.weights) == set(trained.weights)


def test_a_zip_of_several_models_says_how_to_choose(trained, site, pull, models, home, tmp_path):
    other = FOLDER.replace("3d_fullres", "3d_lowres")
    site.files["/Dataset900_things_12subj.zip"] = archive(trained, tmp_path / "a.zip", FOLDER, other)

    refused = pull()
    assert refused.returncode == 2
    first, second = refused.stderr.splitlines()[-2:]
    assert "it holds 2 models" in first
    assert "--configuration" in first
    file, _, name = second.partition("models import ")[2].partition(" --as ")
    assert (Path(file).is_file(), name) == (True, "things")
    assert not (home / "models").exists()

    chosen = pull("--configuration", "3d_fullres")
    assert chosen.returncode == 0, chosen.stderr
    assert len(site.asked) == 1  # what was downloaded is taken
    shutil.rmtree(home / "models")
    by_hand = models("import", file, "--as", name, "--configuration", "3d_fullres")
    assert by_hand.returncode == 0, by_hand.stderr
