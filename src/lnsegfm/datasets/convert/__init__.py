"""Converters: DICOM trees and the public lymph-node sets as nnU-Net raw datasets."""

from lnsegfm.datasets.convert.conversion_plan import ConversionOptions
from lnsegfm.datasets.convert.convert_dataset import ConversionResult, convert
from lnsegfm.datasets.convert.set_card import SetCard
from lnsegfm.datasets.convert.sets import SETS, card_of, require_meaning
from lnsegfm.datasets.convert.tree_listing import list_tree

__all__ = [
    "SETS",
    "ConversionOptions",
    "ConversionResult",
    "SetCard",
    "card_of",
    "convert",
    "list_tree",
    "require_meaning",
]
