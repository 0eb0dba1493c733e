"""The record of a conversion in its dataset: identity, counts, cases; and which conversion a folder belongs to."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lnsegfm.datasets.convert.conversion_plan import TRAIN, ConversionOptions, ConversionPlan, hash_path
from lnsegfm.datasets.convert.set_card import SetCard
from lnsegfm.datasets.nnunet_layout import dataset_description
from lnsegfm.datasets.subjects import SUBJECTS
from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.pseudonyms import read_key
from lnsegfm.storage import PARTIAL, read_json, write_json, write_text

FORMAT = "lnsegfm.conversion/1"
RECORD = "conversion.json"


def conversion_identity(card: SetCard, source: Path, out: Path, options: ConversionOptions) -> dict[str, Any]:
    """What makes two conversions the same: set, source, options and the key of the pseudonyms.

    A private path can hold a name, and whoever guesses it could confirm a plain hash: it is hashed with the key.
    """
    identity: dict[str, Any] = {"set": card.name, "source": hash_path(source), "options": options.identity()}
    if not card.public and not options.keep_names:
        pseudonyms = read_key(options.key, outside=out)
        identity |= {"source": pseudonyms.case(str(source.resolve())), "key_id": pseudonyms.key_id}
    return identity


def require_same_conversion(out: Path, identity: Mapping[str, Any]) -> None:
    """Refuse a folder that holds something else than a conversion of the same source with the same options."""
    record = out / RECORD
    if not record.is_file():
        if out.is_dir() and any(not entry.name.startswith(PARTIAL) for entry in out.iterdir()):
            raise DataError(f"{out}: the folder holds something that is no conversion. Give a new folder.")
        return
    content = read_json(record)
    existing = content.get("identity") if isinstance(content, dict) else None
    if existing == identity:
        return
    if not isinstance(existing, dict) or existing.get("set") != identity["set"]:
        what = f"a conversion of {existing.get('set')}" if isinstance(existing, dict) else "no conversion"
    elif existing.get("key_id") != identity.get("key_id"):
        what = "a conversion whose pseudonyms were made with another key"
    elif existing.get("source") != identity["source"]:
        what = "a conversion of another source"
    else:
        options = existing.get("options")
        before = options if isinstance(options, dict) else {}
        names = dict.fromkeys((*identity["options"], *before))
        changed = [name for name in names if before.get(name) != identity["options"].get(name)]
        what = f"a conversion with another {', '.join(changed) or 'version of this software'}"
    raise DataError(f"{out}: the folder holds {what}. Give another folder.")


def write_descriptions(
    out: Path,
    card: SetCard,
    plan: ConversionPlan,
    identity: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    failed: Mapping[str, tuple[str, str]],
) -> None:
    """Write the files that describe the dataset as a whole.

    Args:
        out: The dataset.
        card: Of the set.
        plan: The plan of the conversion.
        identity: Of the conversion.
        records: Of all cases of the dataset.
        failed: Reasons by case: for the terminal, and redacted for the dataset.
    """
    used = [record for record in records if not record["duplicate_of"]]
    training = [r for r in used if r["part"] == TRAIN and r["voxels"] is not None]
    write_json(out / "dataset.json", dataset_description(plan.channels, plan.labels, len(training)))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("case", "subject"))
    writer.writerows(sorted((record["case"], record["subject"]) for record in used))
    write_text(out / SUBJECTS, table.getvalue())
    show = card.public  # lines about a private source can hold names: only the terminal gets those
    write_json(out / RECORD, {
        "format": FORMAT,
        "complete": not failed and not plan.failed,
        "identity": identity,
        "tool": _version(),
        "set": {k: v for k, v in card.as_json().items() if k not in ("options", "checks", "layout")},
        "counts": {
            "training": len(training),
            "held_out_or_unlabelled": len(used) - len(training),
            "duplicates": len(records) - len(used),
            "failed": len(failed) + len(plan.failed),
            "left_out": len(plan.left_out),
            "passed_over": len(plan.passed_over),
            **(plan.counts or {}),
        },
        "missing": list(plan.missing),
        "left_out": list(plan.left_out) if show else None,
        "passed_over": [dict(facts) for facts in plan.passed_over],
        "failed": [
            *(plan.failed if show else map(_without_identity, plan.failed)),
            *(f"Case {name}: {why}" for name, (_, why) in failed.items()),
        ],
        "cases": sorted(records, key=lambda record: record["case"]),
    })  # fmt: skip


def _without_identity(line: str) -> str:
    """Redact a message about a private source that is of no case: descriptions and names of files can hold a name."""
    if re.match(r"Series [\d.]+[ :]", line):
        return redact(line)
    return "shown on the terminal: the message names a file or a description, which can hold a name"


def redact(line: str, private_words: Iterable[str] = ()) -> str:
    """Redact a message for a dataset that is shared: remove UIDs and names of structures and files.

    A message that holds a path is replaced as a whole. Readers of DICOM never put the patient's name or ID into a
    message, but people put them into names of files and structures.

    Args:
        line: The message.
        private_words: Words of the source to remove; short ones, which occur in every sentence, stay.
    """
    line = re.sub(r"\d+(\.\d+){4,}", "UID", line)
    words = {word.strip() for word in private_words}
    for word in sorted((w for w in words if len(w) >= (6 if w.isdigit() else 3)), key=len, reverse=True):
        line = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", "...", line)
    if "/" in line or "\\" in line or ".dcm" in line.lower():
        return "shown on the terminal: the message holds a path, which can hold a name"
    return re.sub(r"""(?<!\w)(?:'[^']*'|"[^"]*")(?!\w)""", "'...'", line)


def _version() -> str:
    try:
        return f"lnsegfm {version('lnsegfm')}"
    except PackageNotFoundError:
        return "lnsegfm"
