"""Words of earlier versions that no text of the project uses any more; docs/glossary.md holds those that it does."""

from __future__ import annotations

IDIOMS: dict[str, str] = {
    r"invent(ed|s|ing)?": "false positive",
    r"ran away|runs away|run away": "divergence, diverged",
    r"what (it|the model|a model) has seen|seen\.json|LabelSeen": "training domain",
    r"asked (just )?once": "evaluated once",
    r"way_in|the way in|the way out|way back": "preprocessing, export, inverse preprocessing",
    r"sights": "selected views",
    r"specks?": "fragments",
    r"twins?": "duplicates",
    r"mend(s|ed|ing)?": "fix, repair",
    r"amiss": "wrong",
    r"remembered/|--remember|remembered": "source data",
    r"price(s|d)? of": "cost of, preset benchmark",
    r"lies? beside|beside (each|its|the) mask": "sidecar, next to",
    r"stretch(es)? of": "module group",
    r"axis apart|axes apart|(is|are|lies|lie) apart": "anisotropic axis, resampled separately",
    r"LabelLook|look at this case|looks? to be taken": "MaskStatistics, review this case",
    r"a telling|is told|are told|was told|were told": "is reported, is given, is logged",
}
"""Regular expressions over whole words, and what to say instead. Case counts where there is a capital letter."""
