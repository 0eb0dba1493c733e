"""What a notebook shows of a result: one small piece of HTML with everything inside, all texts escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

CONTOUR = "#56B4E9"
NOTICE = "Not for clinical use."
_STYLE = f"""
.lnsegfm {{ max-width: 60rem; font: .9rem/1.4 system-ui, "Liberation Sans", Arial, sans-serif; }}
.lnsegfm p {{ margin: .3rem 0; overflow-wrap: anywhere; }}
.lnsegfm table {{ border-collapse: collapse; margin: .4rem 0; font-variant-numeric: tabular-nums; }}
.lnsegfm th, .lnsegfm td {{ padding: .15rem .6rem .15rem 0; text-align: left; border-bottom: 1px solid #ccc; }}
.lnsegfm tbody th {{ font-weight: 400; }}
.lnsegfm .views {{ display: flex; gap: 4px; align-items: flex-start; }}
.lnsegfm .view {{ flex: 1 1 0; min-width: 0; display: block; background: #000; overflow: hidden; }}
.lnsegfm .view path {{ fill: none; vector-effect: non-scaling-stroke; }}
.lnsegfm .view .c {{ stroke: {CONTOUR}; stroke-width: 1.6px; }}
.lnsegfm .view.bare .c {{ fill: {CONTOUR}; fill-opacity: .3; fill-rule: evenodd; }}
.lnsegfm .view .bar {{ stroke: #fff; stroke-width: 2.5px; }}
.lnsegfm .view .halo {{ stroke: #000; stroke-width: 4px; }}
.lnsegfm .words text {{ fill: #fff; stroke: #000; stroke-width: .16em; paint-order: stroke; }}
"""


@dataclass(frozen=True)
class HtmlTable:
    """Rows of texts, the first of each a heading.

    Args:
        rows: The rows.
        head: Headings of the columns, if they have any.
    """

    rows: Sequence[Sequence[str]]
    head: Sequence[str] = ()

    @classmethod
    def of_facts(cls, facts: Mapping[str, object]) -> HtmlTable:
        """A row a fact."""
        return cls([[name, str(value)] for name, value in facts.items()])

    def to_html(self) -> str:
        """A ``<table>``; nothing without rows."""
        if not self.rows:
            return ""
        cells = "".join(f"<th>{escape(text)}</th>" for text in self.head)
        head = f"<thead><tr>{cells}</tr></thead>" if self.head else ""
        rows = "".join(
            f"<tr><th>{escape(row[0])}</th>{''.join(f'<td>{escape(text)}</td>' for text in row[1:])}</tr>"
            for row in self.rows
        )
        return f"<table>{head}<tbody>{rows}</tbody></table>"


def notebook_html(title: str, tables: Iterable[HtmlTable] = (), *, views: str = "", notes: Iterable[str] = ()) -> str:
    """A piece of HTML for a cell of a notebook.

    Args:
        title: What it shows.
        tables: Tables below it.
        views: ``<svg>`` elements, whose texts are escaped already.
        notes: Sentences at the end.
    """
    parts = [f"<p><strong>{escape(title)}</strong></p>"]
    parts += [f'<div class="views">{views}</div>'] if views else []
    parts += [table.to_html() for table in tables]
    parts += [f"<p>{escape(note)}</p>" for note in (*notes, NOTICE)]
    return f'<div class="lnsegfm"><style>{_STYLE}</style>{"".join(parts)}</div>'
