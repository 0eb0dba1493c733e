"""A paragraph on a run for the methods section of a paper."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from lnsegfm.messages import counted

CITATIONS = {
    "nnU-Net": "Isensee et al., Nature Methods 18, 203, 2021, doi 10.1038/s41592-020-01008-z",
    "dgst": "Luo et al., MICCAI 2025, arXiv 2503.00748",
    "lora": "Hu et al., ICLR 2022, arXiv 2106.09685",
    "dora": "Liu et al., ICML 2024, arXiv 2402.09353",
}


def methods_paragraph(record: Mapping[str, Any]) -> str:
    """Data, base, method, settings, evidence, versions and citations in sentences.

    Args:
        record: What ``run.json`` holds.
    """
    recipe, training, versions = record["recipe"], record["training"], record["versions"]
    base, trainable = record["base"], record["trainable"]
    place = PurePath(base["folder"])
    name = base.get("name") or (place.parent.name if place.name == "model" else place.name) or "model"
    settings = ", ".join(f"{k} {v}" for k, v in recipe["settings"].items() if v is not None)
    spacing, patch = (" x ".join(f"{v:g}" for v in record[key]) for key in ("spacing_mm", "patch_size"))
    sentences = [
        f"The model {name} (SHA-256 {base['sha256'][:12]}) was fine-tuned on {counted(len(record['shots']), 'scan')} "
        f"by {recipe['method']}" + (f" ({settings})" if settings else ""),
        f"{trainable['parameters']:,} of {trainable['total']:,} parameters were trained for {training['iterations']:,} "
        f"iterations with a batch of {record['batch_size']}, patches of {patch} voxels of {spacing} mm (z, y, x), a "
        f"learning rate of {training['lr']:g} and seed {recipe['seed']}",
        _evidence(record),
        f"We used lnsegfm {versions['lnsegfm']}, nnU-Net {versions['nnunetv2']} and PyTorch {versions['torch']}",
    ]
    cited = [CITATIONS["nnU-Net"], *([CITATIONS[m]] if (m := recipe["method"].split("-")[0]) in CITATIONS else [])]
    if base.get("citation"):
        cited.append(str(base["citation"]).rstrip("."))
    return " ".join(f"{sentence}." for sentence in [*sentences, f"References: {'; '.join(cited)}"])


def _evidence(record: Mapping[str, Any]) -> str:
    result = record["result"]
    if result is None:
        return "No scan was held out, so the result was not evaluated"
    overall, held_out = result["overall"], counted(len(record["held_out"]), "scan")
    start = f"It was evaluated on {held_out} that were not trained on"
    if result["outcome"] == "learnt from nothing" or not overall["n"]:
        return f"{start}; the base does not know the labels, so that nothing was compared"
    text = f"{start}: mean Dice {overall['base_mean']:.3f} before and {overall['adapted_mean']:.3f} after fine-tuning"
    interval = overall["effect"]["interval"]
    if interval is None:
        return f"{text}; no interval can be given of so few"
    return (
        f"{text} (difference {overall['mean']:+.3f}, 95 % interval {interval['low']:+.3f} to {interval['high']:+.3f}, "
        f"paired by {counted(overall['effect']['subjects'], 'subject')})"
    )
