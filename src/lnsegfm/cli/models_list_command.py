"""``lnsegfm models list`` and ``lnsegfm models show``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lnsegfm.cli.shared_options import AsJson, print_json

if TYPE_CHECKING:
    from lnsegfm.registry.model_card import ModelCard
    from lnsegfm.registry.stored_model import Stored

Manifest = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A JSON file with further model cards; they go before the others.")
]


def list_models(as_json: AsJson = False, manifest: Manifest = None) -> None:
    """List the models that are known by name, and those on this machine."""
    from lnsegfm.errors import LnSegFmError
    from lnsegfm.registry.home import home, installed, model_place
    from lnsegfm.registry.manifest import cards
    from lnsegfm.registry.stored_model import read_stored

    known = cards(manifest)
    here = installed()
    damaged = {}
    for name in here:
        try:
            stored = read_stored(model_place(name))
            known.setdefault(name, stored.card)
        except LnSegFmError as error:
            damaged[name] = str(error)
    if as_json:
        models = [{**card.as_json(), "installed": name in here} for name, card in known.items()]
        print_json({"home": str(home()), "models": models, "damaged": damaged})
    else:
        _print_table(known, here)
    for problem in damaged.values():
        for line in problem.splitlines():
            print(f"lnsegfm: {line}", file=sys.stderr)


def _print_table(known: dict[str, ModelCard], here: tuple[str, ...]) -> None:
    from rich.console import Console
    from rich.markup import escape  # a card may hold square brackets
    from rich.table import Table

    table = Table("name", "architecture", "task", "installed", "licence")
    for name, card in known.items():
        licence = card.licence.partition(";")[0]
        table.add_row(name, card.architecture, escape(card.task), "yes" if name in here else "no", escape(licence))
    Console().print(table)
    print("All of a model: lnsegfm models show NAME. Not for clinical use.")


def show(
    name: Annotated[str, typer.Argument(help="A name of `lnsegfm models list`.")],
    as_json: AsJson = False,
    manifest: Manifest = None,
) -> None:
    """Show all that is known of a model: figures with their sources, terms, citation, where it is stored."""
    from lnsegfm.registry.home import installed, model_place
    from lnsegfm.registry.manifest import find_card
    from lnsegfm.registry.stored_model import read_stored

    stored = read_stored(model_place(name)) if name in installed() else None
    card = stored.card if stored else find_card(name, manifest)  # an import knows more than a manifest may
    if as_json:
        facts = {**card.as_json(), "installed": stored is not None}
        if stored:
            facts |= {"folder": str(model_place(name)), "stored": stored.as_json()}
        print_json(facts)
        return
    _print_card(card, stored, model_place(name))
    print("Not for clinical use.")


def _print_card(card: ModelCard, stored: Stored | None, folder: Path) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False)
    for what, text in (*_facts(card), *_stored_facts(stored, folder)):
        table.add_row(what, escape(text))
    Console().print(table)


def _facts(card: ModelCard) -> list[tuple[str, str]]:
    unknown = "not known"
    labels = ", ".join(f"{name}={value}" for name, value in (card.labels or {}).items())
    return [
        ("name", card.name),
        ("title", card.title),
        ("architecture", card.architecture),
        ("task", card.task),
        ("labels", labels or unknown),
        ("channels", ", ".join(card.channels or ()) or unknown),
        ("spacing mm (z, y, x)", " x ".join(f"{axis:.4g}" for axis in card.spacing_mm or ()) or unknown),
        *((f"reported: {f.what}", f"{f.value:g} {f.unit} ({f.source})") for f in card.figures),
        ("licence", card.licence),
        ("cite", card.citation or unknown),
        ("sources", "\n".join(card.sources) or unknown),
        ("where from", _whence(card)),
        ("SHA-256 of the file", card.sha256 or unknown),
        ("size", f"{card.bytes} bytes" if card.bytes else unknown),
    ]


def _whence(card: ModelCard) -> str:
    if card.location is None:
        return "not known"
    location = card.location.as_json()
    if location["kind"] == "by-hand":
        return (
            "by hand from "
            + ", ".join(location["pages"])
            + (f": {location['filename']}" if location["filename"] else "")
        )
    if location["kind"] == "huggingface":
        return f"Hugging Face {location['repo']}: {location['filename']} ({location['revision']})"
    return str(location.get("url") or location["path"])


def _stored_facts(stored: Stored | None, folder: Path) -> list[tuple[str, str]]:
    if stored is None:
        return [("installed", "no")]
    from lnsegfm.nnunet.plan_axes import axes_of_plans
    from lnsegfm.storage import read_json

    source = stored.source
    return [
        ("installed", f"{stored.installed_at}, in {folder}"),
        ("made of", f"{source.file}, {source.bytes} bytes, SHA-256 {source.sha256}: {source.form}"),
        ("parts", stored.parts if not stored.covers else f"{stored.parts}: {', '.join(stored.covers)}"),
        ("orientation", axes_of_plans(read_json(folder / "plans.json"))[0] or "not known"),
        *(("note", note) for note in stored.notes),
    ]
