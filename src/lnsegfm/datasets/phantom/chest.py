"""The chest around the carina. The template is +-80 mm high; beyond it the trunk continues as it ended."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from lnsegfm.datasets.phantom.anatomy import (
    BONE,
    Anatomy,
    AnatomyBuilder,
    Tissue,
    paint_spine,
    random_pose,
    skin_surface,
)
from lnsegfm.datasets.phantom.shapes import Ellipsoid, Solid

_MUSCLE = (0.0, Tissue.MUSCLE)
_ARTERY = (0.0, Tissue.ARTERY)
_VEIN = (0.0, Tissue.VEIN)
_SIDES = (False, True)


def build_chest(rng: Generator, height_mm: float) -> Anatomy:
    """Build one patient's chest.

    Args:
        rng: Source of what differs from patient to patient.
        height_mm: Extent of the scan along z.
    """
    rotation, shift = random_pose(rng)
    builder = AnatomyBuilder(rng, scale=float(rng.uniform(0.94, 1.04)), length_mm=max(height_mm, 160) / 2 + 25)
    s, fat = builder.scale, float(rng.uniform(6, 14))
    outline = np.array(
        [(-90, 0, 0, 150, 104, 0), (0, 0, 0, 156, 104, 0), (40, 0, 4, 164, 98, 0), (90, 0, 8, 172, 84, 0)]
    )
    body = skin_surface(outline, s, fat - 10.0, exponent=2.5)
    _paint_wall(builder)
    _paint_lungs(builder)
    paint_spine(builder, y=52.0, body=(16.0, 13.0), pitch_mm=float(rng.uniform(23, 27)))
    _paint_bones(builder)
    chains = _paint_mediastinum(builder)
    chains += _paint_vessels(builder)
    for x in (-1, 1):  # armpits
        chains.append(Ellipsoid(np.array([128 * x, 2, 45]) * s, np.array([4, 14, 30]) * s, np.eye(3)))
    return Anatomy(
        body=body,
        skin_mm=2.2,
        structures=builder.structures,
        chains=chains,
        chain_reach_mm=14.0,
        deep_mm=10.0,
        rotation=rotation,
        shift=shift,
    )


def _paint_wall(builder: AnatomyBuilder) -> None:
    cage = [(-90, 0, 2, 130, 90), (0, 0, 2, 128, 88), (45, 0, 6, 112, 76), (80, 0, 10, 88, 62)]
    builder.pillar(cage, (0, Tissue.MUSCLE), (9, Tissue.FAT), shift_mm=0, exponent=2.3, thickness_mm=9.0)
    for side in _SIDES:
        builder.pillar([(-40, 62, -82, 40, 4, 20), (10, 72, -78, 48, 8, 24), (70, 92, -58, 52, 10, 34)],
                      _MUSCLE, mirror=side, low=-45)  # fmt: skip
        builder.pillar(
            [(-80, 122, 42, 8, 36, 28), (10, 130, 44, 12, 34, 24), (70, 136, 44, 13, 30, 20)], _MUSCLE, mirror=side
        )
        builder.pillar([(-80, 30, 80, 24, 12, 0), (80, 30, 78, 22, 11, 0)], _MUSCLE, mirror=side)
        builder.pillar([(-80, 60, 84, 40, 5, -18), (80, 62, 78, 46, 7, -16)], _MUSCLE, mirror=side)
        builder.pillar([(0, 92, 64, 34, 9, -38), (80, 96, 60, 34, 11, -34)], _MUSCLE, mirror=side, low=-5)


def _paint_lungs(builder: AnatomyBuilder) -> None:
    for side in _SIDES:
        x = -1 if side else 1
        inner = 6 if x > 0 else 0  # the heart takes some of the left lung
        builder.pillar(
            [(-90, 74 + inner, 10, 44, 72, 0), (-30, 74 + inner, 8, 42, 74, 0), (10, 72, 8, 40, 70, 0),
             (45, 64, 12, 34, 56, 0), (72, 52, 18, 24, 36, 0), (86, 46, 20, 6, 10, 0)],
            (0, Tissue.LUNG), mirror=side, shift_mm=1.5, exponent=2.3, high=86,
        )  # fmt: skip


def _paint_bones(builder: AnatomyBuilder) -> None:
    rng, reach = builder.rng, builder.length_mm / builder.scale
    pitch = float(rng.uniform(24, 28))
    for top in np.arange(-reach + rng.uniform(0, pitch), reach + 90, pitch):
        for side in _SIDES:
            points = []
            for angle in np.deg2rad(np.linspace(76, -58, 10)):  # from beside the spine round to the front
                z = top - 52 * (1 - np.sin(angle)) / 2 * 1.3
                a, b = np.interp(z, [0, 45, 80], [124, 108, 84]), np.interp(z, [0, 45, 80], [84, 72, 58])
                y0 = np.interp(z, [0, 45, 80], [2, 6, 10])
                points.append((a * np.cos(angle), y0 + b * np.sin(angle), z))
            builder.tube(points, 3.6, *BONE, mirror=side, wiggle_mm=0.4, stretch=1.7)
    for side in _SIDES:  # shoulder blades
        builder.pillar([(-10, 92, 74, 26, 3, -36), (80, 100, 68, 34, 3.5, -30)], *BONE, mirror=side, low=0)
    builder.pillar([(-70, 0, -86, 13, 5), (30, 0, -78, 15, 5.5), (60, 0, -62, 20, 6)], *BONE, low=-60, high=62)


def _paint_mediastinum(builder: AnatomyBuilder) -> list[Solid]:
    """Windpipe, gullet and heart. Returns the windpipe and its branches."""
    wall, air = (-1.6, Tissue.WALL), (0.0, Tissue.AIRWAY)
    builder.ellipsoid((22, -22, -88), (52, 42, 46), (0, Tissue.HEART_WALL), turn_deg=5)
    builder.ellipsoid((36, -16, -92), (26, 24, 26), _ARTERY, turn_deg=5)  # left heart
    builder.ellipsoid((-4, -30, -90), (20, 22, 26), _VEIN, turn_deg=5)  # right heart
    builder.ellipsoid((8, 6, -68), (24, 13, 16), _ARTERY, turn_deg=5)  # left atrium
    builder.pillar([(-80, 10, 32, 8, 6), (0, 8, 30, 8, 5.5), (80, 4, 28, 8, 5.5)], _MUSCLE)
    chains = []
    for side, end in ((False, (42, 16, -22)), (True, (34, 14, -26))):
        main = [(0, 10, 6), (12, 12, -6), end]
        chains.append(builder.tube(main, (7, 6.5, 5.5), wall, air, mirror=side, shift_mm=0, wiggle_mm=0.3))
        far = (end[0] + 26, end[1] + 8, end[2] - 24)
        builder.tube([end, far], (5, 3), wall, air, mirror=side, shift_mm=0, wiggle_mm=0.5)
    trunk = builder.pillar([(-2, 0, 10, 10, 8), (20, -2, 8, 9, 9), (80, 0, 4, 9, 9)], wall, air, shift_mm=0.3, low=-3)
    return [*chains, trunk]


def _paint_vessels(builder: AnatomyBuilder) -> list[Solid]:
    """Great vessels, their branches in the lungs and the armpits. Returns those that nodes lie along."""
    tube, rng = builder.tube, builder.rng
    down = [(26, 38, z) for z in (10, -20, -60, -120)]
    arch = [(-6, -24, -62), (-16, -26, -30), (-14, -24, 5), (-4, -16, 30), (12, 6, 38), (24, 28, 30), *down]
    chains = [tube(arch, (15, 14.5, 14, 13.5, 12.5, 12, 11.5, 11, 11, 10.5), _ARTERY, calibre=0.06)]
    tube([(14, -34, -60), (19, -32, -35), (20, -18, -14)], (14, 13, 12.5), _ARTERY, calibre=0.06)  # pulmonary trunk
    chains.append(tube([(18, -18, -16), (0, -6, -20), (-28, 0, -20), (-50, 6, -26)], (11, 10, 9, 6), _ARTERY))
    tube([(20, -18, -14), (32, 4, -8), (48, 14, -14)], (10.5, 9.5, 7), _ARTERY)
    chains.append(tube([(-28, -22, -75), (-30, -18, -20), (-28, -20, 25), (-26, -22, 48)], 9.0, _VEIN))
    tube([(-27, -22, 46), (-36, -20, 70), (-42, -18, 110)], 6.5, _VEIN)
    tube([(-26, -24, 44), (0, -30, 52), (30, -24, 66), (44, -18, 110)], 6.0, _VEIN)
    tube([(-10, -14, 32), (-16, -12, 55), (-22, -10, 110)], 5.5, _ARTERY)
    tube([(6, -4, 38), (12, -6, 60), (18, -8, 110)], 3.8, _ARTERY)
    tube([(16, 10, 38), (24, 6, 60), (34, 4, 110)], 4.5, _ARTERY)
    tube([(-12, 36, -120), (-12, 34, 0), (-14, 30, 14), (-26, 4, 16), (-28, -14, 14)], 3.6, _VEIN)  # azygos
    for side in _SIDES:
        x = -1 if side else 1
        tube([(24, 10, -46), (44, 14, -40), (64, 20, -44)], (6, 5, 3.5), _VEIN, mirror=side)  # pulmonary veins
        tube([(20, -80, -80), (18, -72, 60)], 1.8, _ARTERY, mirror=side)
        tube([(92, -38, 90), (116, -10, 70), (132, 2, 50), (146, 10, 30)], (5, 5, 4.5, 4), _VEIN, mirror=side)
        tube([(92, -28, 90), (116, 0, 68), (130, 12, 50), (146, 20, 32)], (4, 4, 3.5, 3), _ARTERY, mirror=side)
        for _ in range(3):
            z = rng.uniform(10, 50)
            tube([(126, -2, z), (124, 10, z - 25), (128, 26, z - 60)], (2.4, 2, 1.6), _VEIN, mirror=side, wiggle_mm=4.0)
        for _ in range(16):  # pulmonary tree
            start = np.array([46.0, 12.0, -22.0]) + rng.normal(0, 6, 3)
            goal = np.array([80 + 4 * x, 10, -25]) + rng.uniform(-1, 1, 3) * (28, 60, 75)
            bend = (start + goal) / 2 + rng.normal(0, 7, 3)
            tissue = _ARTERY if rng.random() < 0.5 else _VEIN
            tube([start, bend, goal], (3.4, 2.2, 0.9), tissue, mirror=side, shift_mm=0)
    return chains
