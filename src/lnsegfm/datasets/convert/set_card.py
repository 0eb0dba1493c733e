"""What is known of a set that can be converted: where it comes from, on which terms, and how it is counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lnsegfm.datasets.convert.conversion_plan import ConversionOptions, ConversionPlan


@dataclass(frozen=True, kw_only=True)
class SetCard:
    """One converter and the facts about its set.

    Args:
        name: What the command line calls it.
        title: What its publishers call it.
        url: Where it is published; empty for data of one's own.
        licence: Its terms, as far as they were found.
        citation: What its publishers ask to be cited, with DOI.
        download: How one gets it, in words.
        layout: The files that the converter expects, in words.
        expected: What is counted, and the number that is published.
        sources: Where the facts above were found.
        checks: What the converter checks, one line each.
        open_points: What was not found, or is not done, one line each.
        options: Names of the fields of :class:`ConversionOptions` that mean something to it.
        public: Its case names are published ones and stay; otherwise they are replaced by pseudonyms.
        drops_duplicates: A volume that is equal, voxel for voxel, to one before it is left out.
        plan: Finds the cases in a folder.
    """

    name: str
    title: str
    url: str
    licence: str
    citation: str
    download: str
    layout: str
    plan: Callable[[Path, ConversionOptions], ConversionPlan]
    expected: Mapping[str, int] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    open_points: tuple[str, ...] = ()
    options: frozenset[str] = frozenset()
    public: bool = True
    drops_duplicates: bool = False

    def as_json(self) -> dict[str, Any]:
        """The card as a table that JSON can hold."""
        return {
            "name": self.name,
            "title": self.title,
            "url": self.url,
            "licence": self.licence,
            "citation": self.citation,
            "download": self.download,
            "layout": self.layout,
            "expected": dict(self.expected),
            "sources": list(self.sources),
            "checks": list(self.checks),
            "open_points": list(self.open_points),
            "options": sorted(self.options),
        }
