"""``lnsegfm models list`` and ``lnsegfm models show``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lnsegfm.cli.fact_lines import fact_lines
from lnsegfm.cli.shared_options import AsJson, print_json
from lnsegfm.spelling import normalise_name

if TYPE_CHECKING:
    from lnsegfm.registry.model_card import ModelCard
    from lnsegfm.registry.stored_model import Stored

Manifest = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A JSON file with further model cards; they go before the others.")
]


def list_models(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WORD]...", help="Only models with these words in their name, title, task or labels: aorta, MR."
        ),
    ] = None,
    as_json: AsJson = False,
    manifest: Manifest = None,
) -> None:
    """List the models that are known by name, and those on this machine."""
    from lnsegfm.errors import LnSegFmError
    from lnsegfm.registry.home import built_in, home, installed, model_place
    from lnsegfm.registry.manifest import cards
    from lnsegfm.registry.stored_model import read_stored

    known = {**{name: read_stored(model_place(name)).card for name in built_in()}, **cards(manifest)}
    here = installed()
    damaged = {}
    for name in here:
        try:
            stored = read_stored(model_place(name))
            known.setdefault(name, stored.card)
        except LnSegFmError as error:
            damaged[name] = str(error)
    known = {name: card for name, card in known.items() if _speaks_of(card, words or ())}
    if as_json:
        brought = built_in()
        models = [
            {**card.as_json(), "installed": name in here, "built_in": name in brought} for name, card in known.items()
        ]
        print_json({"home": str(home()), "models": models, "damaged": damaged})
    elif not known:
        print(f"No model speaks of {' and '.join(words or ())}. All of them: lnsegfm models list")
    else:
        _print_table(known, {name: "built in" if name in built_in() else "yes" for name in here})
    for problem in damaged.values():
        for line in problem.splitlines():
            print(f"lnsegfm: {line}", file=sys.stderr)


def _speaks_of(card: ModelCard, words: Sequence[str]) -> bool:
    """Whether every word stands in a card's name, title, task or labels, in any spelling."""
    text = normalise_name(" ".join((card.name, card.title, card.task, *(card.labels or ()))))
    return all(normalise_name(word) in text for word in words)


def _print_table(known: dict[str, ModelCard], here: dict[str, str]) -> None:
    from rich.box import MINIMAL
    from rich.console import Console
    from rich.markup import escape  # a card may hold square brackets
    from rich.table import Table

    table = Table(box=MINIMAL, padding=(0, 1, 0, 0), pad_edge=False)  # 80 columns hold a name and its task
    table.add_column("name", no_wrap=True)
    table.add_column("network", max_width=9, overflow="fold")
    table.add_column("task")
    table.add_column("here", no_wrap=True)
    table.add_column("licence", max_width=11)
    for name, card in known.items():
        licence = card.licence.partition(";")[0]
        table.add_row(name, card.architecture, escape(card.task), here.get(name, "no"), escape(licence))
    Console().print(table)
    print("All of a model: lnsegfm models show NAME. Not for clinical use.")


def show(
    name: Annotated[str, typer.Argument(help="A name of `lnsegfm models list`.")],
    as_json: AsJson = False,
    manifest: Manifest = None,
) -> None:
    """Show all that is known of a model: figures with their sources, terms, citation, where it is stored."""
    from lnsegfm.registry.home import installed, is_built_in, model_place
    from lnsegfm.registry.manifest import find_card
    from lnsegfm.registry.recorded_hashes import recorded_file
    from lnsegfm.registry.stored_model import read_stored

    stored = read_stored(model_place(name)) if name in installed() else None
    card = stored.card if stored else find_card(name, manifest)  # an import knows more than a manifest may
    if as_json:
        recorded = recorded_file(card)
        facts = {**card.as_json(), "installed": stored is not None, "built_in": is_built_in(name)}
        if recorded:
            facts |= {"recorded": recorded.as_json()}
        if stored:
            facts |= {"folder": str(model_place(name)), "stored": stored.as_json()}
        print_json(facts)
        return
    _print_card(card, stored, model_place(name))
    print("Not for clinical use.")


def _print_card(card: ModelCard, stored: Stored | None, folder: Path) -> None:
    from rich.console import Console

    for line in fact_lines([*_facts(card), *_stored_facts(stored, folder)], Console().width):
        print(line)


def _facts(card: ModelCard) -> list[tuple[str, str]]:
    unknown = "not known"
    return [
        ("name", card.name),
        ("title", card.title),
        ("architecture", card.architecture),
        ("task", card.task),
        ("labels", ", ".join(card.shown_labels) or unknown),
        ("channels", ", ".join(card.channels or ()) or unknown),
        ("spacing mm (z, y, x)", " x ".join(f"{axis:.4g}" for axis in card.spacing_mm or ()) or unknown),
        *([("axes", card.axes)] if card.axes else []),
        *(("reported", f"{f.what}: {f.value:g} {f.unit} ({f.source})") for f in card.figures),
        ("licence", card.licence),
        ("cite", card.citation or unknown),
        ("sources", "\n".join(card.sources) or unknown),
        ("where from", _whence(card)),
        ("SHA-256 of the file", _hash(card)),
        ("size", f"{card.bytes} bytes" if card.bytes else unknown),
    ]


def _hash(card: ModelCard) -> str:
    from lnsegfm.registry.recorded_hashes import has_record, recorded_file

    if card.sha256 is not None or not has_record(card):
        return card.sha256 or "not known"
    if recorded := recorded_file(card):
        return f"{recorded.sha256}, recorded at the first pull on {recorded.recorded_at} (its card names none)"
    return "none in its card; recorded at the first pull"


def _whence(card: ModelCard) -> str:
    from lnsegfm.registry.home import is_built_in

    if card.location is None:
        return "the package brings it" if is_built_in(card.name) else "not known"
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
    from lnsegfm.models.postprocessing_files import postprocessing_lines
    from lnsegfm.nnunet.plan_axes import axes_of_plans
    from lnsegfm.registry.home import is_built_in
    from lnsegfm.storage import read_json

    source = stored.source
    where = "built in" if is_built_in(stored.card.name) else str(stored.installed_at)
    return [
        ("installed", f"{where}, in {folder}"),
        ("made of", f"{source.file}, {source.bytes} bytes, SHA-256 {source.sha256}: {source.form}"),
        ("parts", stored.parts if not stored.covers else f"{stored.parts}: {', '.join(stored.covers)}"),
        ("orientation", axes_of_plans(read_json(folder / "plans.json"))[0] or "not known"),
        *(("note", note) for note in stored.notes),
        *(("postprocessing", line) for line in postprocessing_lines(folder)),
    ]
