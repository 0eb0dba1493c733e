"""The table of methods. One extension = one class in a file of its own and one line here."""

from __future__ import annotations

from collections.abc import Mapping

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

METHODS: dict[str, type[Method]] = {
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


def load_method(name: str, settings: Mapping[str, str] | None = None) -> Method:
    """Make a method from its name and ``name=value`` texts.

    Raises:
        UnknownName: No method of that name.
        ConfigError: A setting it does not have, or a value that cannot be.
    """
    if name not in METHODS:
        raise UnknownName(f"Method {name}: not known. The methods: {', '.join(METHODS)}.")
    return METHODS[name].from_text(settings or {})
