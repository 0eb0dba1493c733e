"""The laws of a set that can be converted."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from lnsegfm.datasets.check import require_usable
from lnsegfm.datasets.convert import ConversionOptions, SetCard, convert
from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.testing.law import require


def check_dataset(card: SetCard, source: Path, options: ConversionOptions | None = None) -> None:
    """Check that the converter of a set keeps the laws of all converters.

    The card is filled in; planning reads the source and changes nothing, twice alike; the conversion gives a dataset
    that can be trained on; converting again keeps every case and every byte.

    Args:
        card: The card of the set.
        source: A small source of its layout, with at least one labelled case.
        options: What is asked of the converter.

    Raises:
        AssertionError: A law is broken; the text says which.
    """
    require(isinstance(card, SetCard), f"set {card!r}: it is no lnsegfm.datasets.convert.SetCard")
    for name in ("name", "title", "layout", "licence", "citation") if card.public else ("name", "title", "layout"):
        require(getattr(card, name).strip(), f"set {card.name}: its card leaves {name} empty")
    chosen, before = options or ConversionOptions(), _content(source)
    plans = [card.plan(source, chosen) for _ in range(2)]
    names = [[(scan.name, scan.subject, scan.fingerprint) for scan in plan.scans] for plan in plans]
    require(names[0] == names[1], f"set {card.name}: planned twice it finds {names[0]} and {names[1]}")
    require(plans[0].scans, f"set {card.name}: it finds no case in {source}: {plans[0].failed + plans[0].left_out}")
    with TemporaryDirectory(prefix="lnsegfm-") as folder:
        out = Path(folder) / "dataset"
        first = convert(card, source, out, chosen)
        require(not first.failed, f"set {card.name}: {'; '.join(first.failed)}")
        require(_content(source) == before, f"set {card.name}: the conversion changes its source")
        require_usable(open_dataset(out))
        made = _content(out)
        again = convert(card, source, out, chosen)
        require(not again.written, f"set {card.name}: converted again, cases {again.written} are written anew")
        changed = sorted(name for name in made if _content(out).get(name) != made[name])
        require(not changed, f"set {card.name}: converted again, {changed} change")


def _content(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
