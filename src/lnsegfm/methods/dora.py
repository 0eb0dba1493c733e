"""Weight-decomposed low-rank adaptation (DoRA)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lnsegfm.methods.lora import LoRA


@dataclass(frozen=True, kw_only=True)
class DoRA(LoRA):
    """Every kernel becomes m V / |V| with V = W + alpha / rank * B A: direction by LoRA, magnitude m separate."""

    name = "dora"
    summary = "LoRA for the direction of every kernel, and its magnitude; they and the head train"
    source = "Liu et al., ICML 2024, arXiv 2402.09353"
    decomposed: ClassVar[bool] = True
