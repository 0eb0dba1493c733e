"""The cards that are known: those that come with the package, those in LNSEGFM_HOME, those of a file that is named."""

from __future__ import annotations

import difflib
import re
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lnsegfm.errors import DataError, ModelError, UnknownName
from lnsegfm.registry.home import home
from lnsegfm.registry.model_card import FileLocation, ModelCard, read
from lnsegfm.storage import PARTIAL, read_json

FORMAT = "lnsegfm.models/1"
SHIPPED = tuple(Path(__file__).with_name(name) for name in ("manifest.json", "totalsegmentator.json", "published.json"))
"""Cards that come with the package: LN-Seg-FM's and the built-in base, TotalSegmentator's tasks, others."""


def cards(extra: Path | None = None) -> dict[str, ModelCard]:
    """Every card by its name.

    A later card replaces an earlier one of its name: first the shipped cards, then those of the JSON files in
    ``LNSEGFM_HOME/manifests`` in the order of their names, then those of ``extra``.

    Raises:
        ModelError: A manifest is not what it should be; one line a fault, naming file, card and field.
    """
    own = sorted(path for path in (home() / "manifests").glob("*.json") if not path.name.startswith(PARTIAL))
    by_name: dict[str, ModelCard] = {}
    for path in (*SHIPPED, *own, *([extra] if extra else [])):
        by_name.update(read_manifest(path))
    return by_name


@cache
def totalsegmentator_datasets() -> frozenset[str]:
    """Names of TotalSegmentator's data sets that nobody else uses: those that end in the number of their subjects."""
    entries = read_json(Path(__file__).with_name("totalsegmentator.json"))["models"]
    names = (Path(urlsplit(entry["location"]["url"]).path).stem for entry in entries)
    return frozenset(name for name in names if re.search(r"_\d+subj$", name))


def find_card(name: str, extra: Path | None = None) -> ModelCard:
    """The card of a name.

    Raises:
        UnknownName: No manifest has it; the message names those that are nearest.
        ModelError: As `cards`.
    """
    known = cards(extra)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        meant = f"Did you mean {' or '.join(near)}? " if near else ""
        raise UnknownName(f"Model {name!r}: no manifest names it. {meant}All names: lnsegfm models list")
    return known[name]


def read_manifest(path: Path) -> dict[str, ModelCard]:
    """Read one file of cards: ``{"format": "lnsegfm.models/1", "models": [...]}``.

    Raises:
        ModelError: It is not such a file; one line a fault, naming file, card and field.
    """
    try:
        content = read_json(path)
    except DataError as error:
        raise ModelError(str(error)) from None
    entries = _entries(path, content)
    by_name: dict[str, ModelCard] = {}
    faults: list[str] = []
    for number, entry in enumerate(entries, start=1):
        named = entry.get("name") if isinstance(entry, dict) else None
        where = f"{path}: card {named if isinstance(named, str) and named.isprintable() else number}"
        try:
            card = read(ModelCard, entry, where)
        except ModelError as error:
            faults.append(str(error))
            continue
        if card.name in by_name:
            faults.append(f"{where}: the name is taken twice in this file. Name each card once.")
        by_name[card.name] = _beside(path, card)
    if faults:
        raise ModelError("\n".join(faults))
    return by_name


def _entries(path: Path, content: Any) -> list[Any]:
    if not isinstance(content, dict) or not isinstance(content.get("models"), list):
        raise ModelError(f'{path}: not a manifest. Write {{"format": "{FORMAT}", "models": [...]}}.')
    if content.get("format") != FORMAT:
        raise ModelError(f"{path}: format {content.get('format')!r} is not {FORMAT}. Use the lnsegfm it is made for.")
    unknown = sorted(content.keys() - {"format", "models"})
    if unknown:
        raise ModelError(f"{path}: field {unknown[0]!r}: no such field is known. Remove it, or check its spelling.")
    return list(content["models"])


def _beside(path: Path, card: ModelCard) -> ModelCard:
    if not isinstance(card.location, FileLocation):
        return card
    location = card.location.model_copy(update={"path": str(path.absolute().parent / card.location.path)})
    return card.model_copy(update={"location": location})
