"""Analytic CT phantoms of the neck and the chest with lymph nodes of exactly known size.

They stand in for patients where a test or a demonstration needs scans: geometry, HU values and confusions (vessels,
glands, muscle) are of the right kind, and nothing about them is evidence about real scans.
"""

from lnsegfm.datasets.phantom.anatomy import Tissue
from lnsegfm.datasets.phantom.domain import DOMAINS, PHASES, SITES, Domain, Phase, preset
from lnsegfm.datasets.phantom.phantom_case import PhantomCase, make_case
from lnsegfm.datasets.phantom.phantom_dataset import write_dataset
from lnsegfm.datasets.phantom.phantom_nodes import PhantomNode, axial_diameters

__all__ = [
    "DOMAINS",
    "PHASES",
    "SITES",
    "Domain",
    "PhantomCase",
    "PhantomNode",
    "Phase",
    "Tissue",
    "axial_diameters",
    "make_case",
    "preset",
    "write_dataset",
]
