"""The table of methods: those that are built in, and those of plugins (entry points ``lnsegfm.methods``).

One extension is one class in a file of its own, and one line here or one entry point in its own package.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from lnsegfm.errors import UnknownName
from lnsegfm.methods.affine import Affine
from lnsegfm.methods.bias import Bias
from lnsegfm.methods.bounded_dgst import BoundedDGST
from lnsegfm.methods.decoder import Decoder
from lnsegfm.methods.dgst import DGST
from lnsegfm.methods.dora import DoRA
from lnsegfm.methods.full import Full
from lnsegfm.methods.gps import GPS
from lnsegfm.methods.head import Head
from lnsegfm.methods.l2_sp import L2SP
from lnsegfm.methods.lora import LoRA
from lnsegfm.methods.method import Method
from lnsegfm.methods.random_dynamic import RandomDynamic
from lnsegfm.methods.random_static import RandomStatic
from lnsegfm.methods.scratch import Scratch
from lnsegfm.methods.spatial_adapter_method import SpatialAdapter
from lnsegfm.methods.ssf import SSF
from lnsegfm.methods.zero_shot import ZeroShot
from lnsegfm.plugins import Plugin, PluginTable

BUILTIN: dict[str, type[Method]] = {
    cls.name: cls
    for cls in (
        ZeroShot,
        Scratch,
        Full,
        L2SP,
        Head,
        Decoder,
        Bias,
        Affine,
        SSF,
        LoRA,
        DoRA,
        SpatialAdapter,
        GPS,
        RandomStatic,
        DGST,
        RandomDynamic,
        BoundedDGST,
    )
}

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_CARD = ("name", "summary", "source", "trains")


def accept_method(value: Any, plugin: Plugin) -> type[Method]:
    """A plugin's method.

    Raises:
        PluginError: It is no method, or its card is incomplete.
    """
    if not (isinstance(value, type) and issubclass(value, Method)):
        raise plugin.error("it is no subclass of lnsegfm.methods.method.Method")
    if problem := card_problem(value):
        raise plugin.error(problem)
    if value.name != plugin.name:
        raise plugin.error(f"the method calls itself {value.name}, and both names must be the same")
    return value


def card_problem(method: type[Method]) -> str | None:
    """What is wrong with the card of a method, as a clause; None where nothing is."""
    missing = [name for name in _CARD if not hasattr(method, name)]
    if missing:
        return f"{method.__name__} lacks {', '.join(missing)}"
    if not _NAME.fullmatch(method.name):
        return f"the name {method.name!r} is not of small letters and digits, joined by single hyphens"
    if not (dataclasses.is_dataclass(method) and method.__dataclass_params__.frozen):  # type: ignore[attr-defined]
        return f"{method.__name__} is no frozen dataclass"
    without = [field.name for field in dataclasses.fields(method) if "meaning" not in field.metadata]
    if without:
        return f"{', '.join(without)}: no line of meaning; declare it by setting(default, meaning)"
    return None


METHODS = PluginTable("methods", BUILTIN, accept_method)


def load_method(name: str, settings: Mapping[str, str] | None = None) -> Method:
    """Make a method from its name and ``name=value`` texts.

    Raises:
        UnknownName: No method of that name.
        PluginError: A plugin's method that cannot be used.
        ConfigError: A setting it does not have, or a value that cannot be.
    """
    if name not in METHODS:
        raise UnknownName(f"Method {name}: not known. The methods: {', '.join(METHODS)}.")
    return METHODS[name].from_text(settings or {})
