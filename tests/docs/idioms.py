"""Words of earlier versions that no text of the project uses any more; docs/glossary.md holds those that it does."""

from __future__ import annotations

IDIOMS: dict[str, str] = {
    r"invent(ed|s|ing)?": "false positive",
    r"ran away|runs away|run away": "divergence, diverged",
    r"what (it|the model|a model) has seen|seen\.json|LabelSeen": "training domain",
    r"asked (just )?once": "evaluated once",
    r"way[ _]in|way[ _]out|way[ _]back": "preprocessing, export, inverse preprocessing",
    r"sights?": "selected views",
    r"specks?": "fragments",
    r"twins?": "duplicates",
    r"mend(s|ed|ing)?": "fix, repair",
    r"amiss": "wrong",
    r"remembers?|remembered|remembering": "source data",
    r"price(s|d)? of": "cost of, preset benchmark",
    r"lies? beside|beside (each|its|the) mask": "sidecar, next to",
    r"stretch(es)? of": "module group",
    r"axis apart|axes apart|(is|are|lies|lie) apart": "anisotropic axis, resampled separately",
    r"LabelLook|look at this case|looks? to be taken": "MaskStatistics, review this case",
    r"a telling|is told|are told|was told|were told": "is reported, is given, is logged",
}
"""Regular expressions over whole words, and what to say instead. Case counts where there is a capital letter."""

PENDING: frozenset[str] = frozenset(IDIOMS)
"""Those that some rooms still hold."""

AWAITED: frozenset[str] = frozenset(
    {
        "anisotropic axis",
        "divergence",
        "false negative",
        "inverse preprocessing",
        "sanity check",
        "selected views",
        "source data",
        "true positive",
    }
)
"""Terms of the glossary that no room uses yet."""
