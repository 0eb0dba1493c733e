"""The table of methods. One extension = one class in a file of its own and one line here."""

from __future__ import annotations

from collections.abc import Mapping

from lnsegfm.errors import UnknownName
from lnsegfm.methods.dense import Affine, Bias, Full, Head
from lnsegfm.methods.dgst import DGST
from lnsegfm.methods.method import Method

METHODS: dict[str, type[Method]] = {cls.name: cls for cls in (Full, Head, Bias, Affine, DGST)}


def load_method(name: str, settings: Mapping[str, str] | None = None) -> Method:
    """Make a method from its name and ``name=value`` texts.

    Raises:
        UnknownName: No method of that name.
        ConfigError: A setting it does not have, or a value that cannot be.
    """
    if name not in METHODS:
        raise UnknownName(f"Method {name}: not known. The methods: {', '.join(METHODS)}.")
    return METHODS[name].from_text(settings or {})
