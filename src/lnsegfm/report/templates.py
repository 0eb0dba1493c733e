"""Templates of the HTML pages, filled in. A page is one file: styles, script and pictures are inside."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from lnsegfm.report.pictures import BASE_COLOUR, PREDICTION_COLOUR, REFERENCE_COLOUR

_COLOURS = {"reference": REFERENCE_COLOUR, "base": BASE_COLOUR, "prediction": PREDICTION_COLOUR}


def render_page(template: str, **content: object) -> str:
    """Fill a template of this folder in.

    Text is escaped unless it is ``Markup``; a name that ``content`` lacks is an error. The filter ``minus`` sets minus
    signs before numbers. The page's script is allowed by its hash (``script_hash``), so no other one runs.
    """
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_read),
    )
    environment.filters["minus"] = _minus
    script = _read("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        style=Markup(_read("page.css")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        colours=_COLOURS,
        **content,
    )


def _minus(text: object) -> str:
    return re.sub(r"(?<![\w-])-(?=\d)", "\N{MINUS SIGN}", str(text))


def _read(name: str) -> str:
    return files("lnsegfm.report").joinpath(name).read_text(encoding="utf-8")
