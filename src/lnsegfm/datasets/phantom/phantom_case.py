"""One phantom case: image, reference mask and the exact truth about its nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lnsegfm.datasets.phantom.chest import build_chest
from lnsegfm.datasets.phantom.domain import Domain
from lnsegfm.datasets.phantom.neck import build_neck
from lnsegfm.datasets.phantom.phantom_nodes import PhantomNode, place_nodes
from lnsegfm.datasets.phantom.render import Palette, centres, render
from lnsegfm.imaging.grid import Grid
from lnsegfm.storage import content_hash

VERSION = 1  # of the generator: cases of two versions differ for one seed
BUILDERS = {"neck": build_neck, "chest": build_chest}
LYMPH_NODE, IGNORE = 1, 2


@dataclass(frozen=True, eq=False)
class PhantomCase:
    """A phantom scan. Arrays are (z, y, x); directions are those of LPS.

    Args:
        name: The case's name.
        image_hu: int16, HU.
        mask: uint8: 1 lymph node, 2 ``ignore`` (a node that the annotator left out), 0 elsewhere.
        instances: uint8: k + 1 in the voxels whose centre lies in ``nodes[k]``, 0 elsewhere.
        tissue: uint8, ``Tissue`` of the patient without nodes.
        nodes: The nodes, in the scan's frame.
        grid: Where the voxels lie in the scanner's world.
    """

    name: str
    image_hu: NDArray[np.int16]
    mask: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    tissue: NDArray[np.uint8]
    nodes: tuple[PhantomNode, ...]
    grid: Grid

    def truth(self) -> dict[str, Any]:
        """The sidecar's content: what is exactly known about every node. See docs/phantoms.md for the fields."""
        return {
            "case": self.name,
            "origin_mm": list(self.grid.origin_mm),
            "spacing_mm": list(self.grid.spacing_mm),
            "shape": list(self.grid.shape),
            "nodes": [self._node(k, node) for k, node in enumerate(self.nodes)],
        }

    def _node(self, k: int, node: PhantomNode) -> dict[str, Any]:
        spacing = np.array(self.grid.spacing_mm)
        index = node.solid.centre[::-1] / spacing + (np.array(self.grid.shape) - 1) / 2
        order = np.argsort(-node.solid.semi_axes, kind="stable")
        long_mm, short_mm = node.axial_diameters_mm
        return {
            "id": k + 1,
            "annotated": node.annotated,
            "volume_ml": node.volume_ml,
            "semi_axes_mm": node.solid.semi_axes[order].tolist(),
            "axes": node.solid.rotation[:, order].T.tolist(),
            "recist_long_axis_mm": long_mm,
            "recist_short_axis_mm": short_mm,
            "centre_mm": (self.grid.origin_mm + (index * spacing)[::-1]).tolist(),
            "centre_index": index.tolist(),
            "hu": node.hu,
            "necrotic_core": node.core,
            "voxels": int(np.count_nonzero(self.instances == k + 1)),
            "touches": [j + 1 for j in node.touches],
        }


def case_name(site: str, index: int) -> str:
    """Name of the case with that number."""
    return f"phantom_{site}_{index:03d}"


def make_case(domain: Domain, seed: int, index: int) -> PhantomCase:
    """Make one case. It depends on the domain, the seed and the index, and on nothing else.

    Two domains share no patient, whatever their seeds.

    Raises:
        DataError: The domain's fewest nodes do not fit.
    """
    salt = int(content_hash({"version": VERSION, **domain.as_dict()})[:16], 16)
    streams = np.random.SeedSequence([salt, seed, index]).spawn(4)
    of_patient, of_nodes, of_palette, of_scan = (np.random.Generator(np.random.PCG64(s)) for s in streams)
    height = domain.shape[0] * domain.spacing_mm[0]
    anatomy = BUILDERS[domain.site](of_patient, height)
    nodes = place_nodes(anatomy, domain, of_nodes)
    image, tissue = render(anatomy, nodes, Palette.sample(domain, of_palette), domain, of_scan)
    instances = _instances(nodes, domain)
    lookup = np.array([0, *(LYMPH_NODE if n.annotated else IGNORE for n in nodes)], np.uint8)
    return PhantomCase(
        name=case_name(domain.site, index),
        image_hu=image,
        mask=lookup[instances],
        instances=instances,
        tissue=tissue,
        nodes=nodes,
        grid=Grid(domain.shape, domain.spacing_mm, _origin(domain, of_scan)),
    )


def _origin(domain: Domain, rng: Generator) -> tuple[float, float, float]:
    """Where the first voxel lies in the scanner, on half millimetres: single precision holds that exactly."""
    table = np.array([0.0, -160.0, -400.0 if domain.site == "chest" else -120.0]) + rng.uniform(-40, 40, 3)
    first = table + np.array([axis[0] for axis in centres(domain)])[::-1]
    x, y, z = (np.rint(first * 2) / 2).tolist()
    return x, y, z


def _instances(nodes: tuple[PhantomNode, ...], domain: Domain) -> NDArray[np.uint8]:
    labels = np.zeros(domain.shape, np.uint8)
    z, y, x = centres(domain)
    for k, node in enumerate(nodes):
        low, high = node.solid.bounds
        box = tuple(slice(*np.searchsorted(a, (low[2 - i], high[2 - i]))) for i, a in enumerate((z, y, x)))
        level = node.solid.level(x[None, None, box[2]], y[None, box[1], None], z[box[0], None, None])
        labels[box][level <= 1] = k + 1
    return labels
