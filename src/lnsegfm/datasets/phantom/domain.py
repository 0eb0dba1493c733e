"""What distinguishes one clinic's scans from another's: protocol, scanner and annotation as one set of parameters."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from lnsegfm.errors import ConfigError, UnknownName

SITES = ("neck", "chest")
SMALLEST_NODE_MM, LARGEST_NODE_MM = 3.0, 30.0
FEWEST_NODES, MOST_NODES = 3, 40
MOST_VOXELS = 500_000_000


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What iodine adds or sets at one time after injection.

    Args:
        artery_hu: HU of arterial blood.
        vein_hu: HU of venous blood.
        node_hu: HU that a lymph node gains over its native value.
        gland_hu: HU that salivary glands and thyroid gain.
        muscle_hu: HU that muscle and heart wall gain.
    """

    artery_hu: float
    vein_hu: float
    node_hu: float
    gland_hu: float
    muscle_hu: float


PHASES = {
    "none": Phase(artery_hu=42, vein_hu=42, node_hu=0, gland_hu=0, muscle_hu=0),
    "arterial": Phase(artery_hu=320, vein_hu=110, node_hu=20, gland_hu=35, muscle_hu=4),
    "venous": Phase(artery_hu=165, vein_hu=180, node_hu=45, gland_hu=55, muscle_hu=10),
    "delayed": Phase(artery_hu=120, vein_hu=125, node_hu=38, gland_hu=40, muscle_hu=10),
}


@dataclass(frozen=True, kw_only=True)
class Domain:
    """The parameters of one population of phantoms. Tuples of lengths are (z, y, x).

    Args:
        site: Part of the body: ``neck`` or ``chest``.
        contrast: Phase of the contrast medium: ``none``, ``arterial``, ``venous`` or ``delayed`` (see ``PHASES``).
        noise_hu: Standard deviation of the noise in a uniform region, HU.
        blur_mm: Full width at half maximum of the in-plane point spread function, mm. Across slices the profile is
            the slice itself.
        spacing_mm: Distance between voxel centres (z, y, x), mm; slices are as thick as they are far apart.
        size_mm: Extent of the scan (z, y, x), mm; rounded to whole voxels.
        node_count: Fewest and most nodes of a case.
        node_size_mm: Smallest and largest diameter, mm. Every one of a node's three diameters lies in this range; the
            longest is drawn log-uniformly from it.
        touching_share: Share of nodes that are placed tangent to another one where there is room.
        node_hu: Mean HU of a node before contrast; the phase adds its own.
        node_spread_hu: Standard deviation of that mean between nodes, HU.
        necrotic_share: Share of nodes with a longest diameter of 12 mm or more that have a dark core.
        hu_offset: Calibration error of the scanner, HU, added everywhere but in air.
        annotated_share: Share of nodes that the annotator marked; the others are labelled ``ignore``.

    Raises:
        ConfigError: A value that cannot be.
    """

    site: str = "neck"
    contrast: str = "venous"
    noise_hu: float = 9.0
    blur_mm: float = 1.5
    spacing_mm: tuple[float, float, float] = (2.5, 2.0, 2.0)
    size_mm: tuple[float, float, float] = (120.0, 160.0, 160.0)
    node_count: tuple[int, int] = (8, 36)
    node_size_mm: tuple[float, float] = (4.0, 30.0)
    touching_share: float = 0.25
    node_hu: float = 40.0
    node_spread_hu: float = 5.0
    necrotic_share: float = 0.0
    hu_offset: float = 0.0
    annotated_share: float = 1.0

    def __post_init__(self) -> None:
        for name, names in (("site", SITES), ("contrast", tuple(PHASES))):
            if getattr(self, name) not in names:
                raise ConfigError(
                    f"{name} {getattr(self, name)!r}: phantoms know no such {name}. Use one of {', '.join(names)}."
                )
        for name, count in (("spacing_mm", 3), ("size_mm", 3), ("node_count", 2), ("node_size_mm", 2)):
            value = getattr(self, name)
            if not isinstance(value, (tuple, list)) or len(value) != count:
                raise ConfigError(f"{name} {value!r}: {count} numbers are needed. Give {count} numbers.")
            object.__setattr__(self, name, tuple(int(v) if name == "node_count" else float(v) for v in value))
        self._check_acquisition()
        self._check_nodes()

    def _check_acquisition(self) -> None:
        for name, low, high in (
            ("noise_hu", 0, 500),
            ("blur_mm", 0, 20),
            ("node_hu", -200, 500),
            ("node_spread_hu", 0, 100),
            ("hu_offset", -200, 200),
        ):
            _within(name, getattr(self, name), low, high)
        for value in self.spacing_mm:
            _within("spacing_mm", value, 0.2, 10)
        for value in self.size_mm:
            _within("size_mm", value, 60, 1000)
        if math.prod(self.shape) > MOST_VOXELS:
            raise ConfigError(
                f"size_mm {self.size_mm}: at {self.spacing_mm} mm that is {math.prod(self.shape):,} voxels a case. "
                "Use a smaller size or a larger spacing."
            )

    def _check_nodes(self) -> None:
        for name in ("touching_share", "necrotic_share", "annotated_share"):
            _within(name, getattr(self, name), 0, 1)
        if self.annotated_share == 0:
            raise ConfigError(
                "annotated_share 0.0: a case without any annotated node teaches nothing. Use more than 0."
            )
        for name, low, high in (
            ("node_count", FEWEST_NODES, MOST_NODES),
            ("node_size_mm", SMALLEST_NODE_MM, LARGEST_NODE_MM),
        ):
            first, last = getattr(self, name)
            _within(name, first, low, high)
            _within(name, last, low, high)
            if first > last:
                raise ConfigError(f"{name} {(first, last)}: the first is larger than the second. Swap them.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels (z, y, x)."""
        z, y, x = (max(1, round(e / s)) for e, s in zip(self.size_mm, self.spacing_mm, strict=True))
        return z, y, x

    @property
    def phase(self) -> Phase:
        """HU values of the contrast phase."""
        return PHASES[self.contrast]

    def as_dict(self) -> dict[str, Any]:
        """The fields as a JSON-able dict; ``Domain(**d)`` gives the domain back."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # NaN fails this, too
        raise ConfigError(f"{name} {value}: phantoms need a value from {low:g} to {high:g}. Choose one in that range.")


DOMAINS = {
    "base": Domain(),
    "near": Domain(
        contrast="delayed",
        noise_hu=15.0,
        blur_mm=2.2,
        spacing_mm=(3.0, 2.0, 2.0),
        node_size_mm=(4.0, 25.0),
        hu_offset=-4.0,
    ),
    "far": Domain(
        contrast="none",
        noise_hu=20.0,
        blur_mm=3.0,
        spacing_mm=(4.0, 2.0, 2.0),
        node_size_mm=(4.0, 20.0),
        necrotic_share=0.1,
        hu_offset=-15.0,
    ),
}


def preset(name: str, site: str = "neck") -> Domain:
    """A preset of ``DOMAINS`` at a site; a chest takes a larger field of view at a coarser in-plane spacing.

    Raises:
        UnknownName: No such preset.
        ConfigError: No such site.
    """
    if name not in DOMAINS:
        raise UnknownName(f"domain {name!r}: there is no such preset. Use one of {', '.join(DOMAINS)}.")
    domain = DOMAINS[name]
    if site == domain.site:
        return domain
    return replace(domain, site=site, spacing_mm=(domain.spacing_mm[0], 3.2, 3.2), size_mm=(120.0, 256.0, 352.0))
