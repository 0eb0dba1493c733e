"""Converters: DICOM trees and the public lymph-node sets as nnU-Net raw datasets."""

from lnsegfm.datasets.convert.card import SetCard
from lnsegfm.datasets.convert.listing import list_tree
from lnsegfm.datasets.convert.plan import Options
from lnsegfm.datasets.convert.sets import SETS, card_of, require_meaning
from lnsegfm.datasets.convert.write import Converted, convert

__all__ = ["SETS", "Converted", "Options", "SetCard", "card_of", "convert", "list_tree", "require_meaning"]
