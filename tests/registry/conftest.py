from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from lnsegfm.progress import Progress
from lnsegfm.registry.download import PIECE
from lnsegfm.registry.model_card import HttpsLocation, ModelCard
from lnsegfm.registry.stored_model import Source, Stored, hash_files
from tests.registry.server import Site, serve

CONTENT = random.Random(0).randbytes(4 * PIECE + 123)
HALF = 2 * PIECE


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_TOKEN", "HF_ENDPOINT", "LNSEGFM_MIRROR", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between two tries."""
    monkeypatch.setattr("lnsegfm.registry.download.WAITS_S", (0.0, 0.0, 0.0, 0.0))


@pytest.fixture
def site(quick: None) -> Iterator[Site]:
    with serve(Site()) as served:
        yield served


@pytest.fixture
def elsewhere(quick: None) -> Iterator[Site]:
    """A second server, on another port."""
    with serve(Site()) as served:
        yield served


def make_card(name: str = "base", **fields: Any) -> ModelCard:
    fields = {"title": "A base", "architecture": "nnunet", "task": "nodes", "licence": "CC-BY-4.0; cite"} | fields
    return ModelCard(name=name, **fields)


def card_at(url: str, content: bytes | None = None, **fields: Any) -> ModelCard:
    """A card with an https location, which knows the hash and the size of its content where that is given."""
    if content is not None:
        fields = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)} | fields
    return make_card(location=HttpsLocation(url=url), **fields)


@pytest.fixture
def store(home: Path) -> Callable[..., Path]:
    """Store a model of two small files, as an import does."""

    def store(name: str = "base", card: ModelCard | None = None, source_sha256: str = "a" * 64) -> Path:
        folder = home / "models" / name
        (folder / "fold_0").mkdir(parents=True)
        (folder / "plans.json").write_text("{}")
        (folder / "fold_0" / "checkpoint_final.pth").write_bytes(b"weights")
        Stored(
            card=card or make_card(name),
            source=Source(file="base.zip", sha256=source_sha256, bytes=7, form="an nnU-Net zip"),
            files=hash_files(folder),
            weights_sha256=("b" * 64,),
            installed_at=date(2025, 1, 2),
            notes=("one fold of five",),
        ).write(folder)
        return folder

    return store


class Told(Progress):
    def __init__(self) -> None:
        self.stages: list[str] = []
        self.steps: list[tuple[int, int, str]] = []

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def advance(self, done: int, total: int, note: str = "") -> None:
        self.steps.append((done, total, note))


@pytest.fixture
def url(site):
    site.files["/m/base.zip"] = CONTENT
    return f"{site.url}/m/base.zip"


def left(home: Path) -> list[str]:
    """What lies below downloads, but for locks."""
    names = (p.relative_to(home / "downloads").as_posix() for p in (home / "downloads").rglob("*") if p.is_file())
    return sorted(name.partition("/")[2] for name in names if not name.endswith(".lock"))
