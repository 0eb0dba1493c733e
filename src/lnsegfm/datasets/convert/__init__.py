"""Converters: DICOM trees and the public lymph-node sets as nnU-Net raw datasets."""

from lnsegfm.datasets.convert.collection_card import SetCard
from lnsegfm.datasets.convert.conversion_plan import Options
from lnsegfm.datasets.convert.convert_dataset import Converted, convert
from lnsegfm.datasets.convert.listing import list_tree
from lnsegfm.datasets.convert.sets import SETS, card_of, require_meaning

__all__ = ["SETS", "Converted", "Options", "SetCard", "card_of", "convert", "list_tree", "require_meaning"]
