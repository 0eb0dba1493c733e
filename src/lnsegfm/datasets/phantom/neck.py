"""The neck from the collar bones to the jaw. The template is +-60 mm high; beyond it the neck continues as it ended."""

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
from lnsegfm.datasets.phantom.shapes import Solid

_MUSCLE = (0.0, Tissue.MUSCLE)
_SIDES = (False, True)


def build_neck(rng: Generator, height_mm: float) -> Anatomy:
    """Build one patient's neck.

    Args:
        rng: Source of what differs from patient to patient.
        height_mm: Extent of the scan along z.
    """
    rotation, shift = random_pose(rng)
    builder = AnatomyBuilder(rng, scale=float(rng.uniform(0.94, 1.06)), length_mm=max(height_mm, 120) / 2 + 25)
    fat = float(rng.uniform(3.0, 7.0))
    outline = np.array([
        (-75, 0, 2, 84, 62, 0), (-50, 0, 0, 67, 61, 0), (-15, 0, 0, 61, 59, 0),
        (20, 0, -2, 62, 62, 0), (45, 0, -4, 66, 69, 0), (75, 0, -4, 69, 73, 0),
    ], dtype=float)  # fmt: skip
    body = skin_surface(outline, builder.scale, fat - 5.0, exponent=2.2)
    _paint_muscles(builder)
    paint_spine(builder, y=7.0, body=(11.0, 8.0), pitch_mm=float(rng.uniform(17, 20)))
    _paint_organs(builder)
    _paint_bones(builder)
    chains = _paint_vessels(builder)
    return Anatomy(
        body=body,
        skin_mm=2.0,
        structures=builder.structures,
        chains=chains,
        chain_reach_mm=16.0,
        deep_mm=4.0,
        rotation=rotation,
        shift=shift,
    )


def _paint_muscles(builder: AnatomyBuilder) -> None:
    pillar = builder.pillar
    for side in _SIDES:
        # sternocleidomastoid, from the breast bone up to behind the ear
        mastoid = [(-60, 21, -45, 11, 6, 28), (-25, 36, -32, 13, 6, 46), (10, 46, -12, 15, 6.5, 70)]
        pillar([*mastoid, (55, 52, 14, 13, 7, 95)], _MUSCLE, mirror=side)
        pillar([(-60, 44, 32, 28, 6, -42), (-20, 32, 42, 22, 5.5, -36), (50, 21, 47, 17, 5, -22)], _MUSCLE, mirror=side)
        pillar([(-60, 18, 37, 15, 11, 0), (50, 17, 37, 15, 13, -10)], _MUSCLE, mirror=side)  # spinal extensors
        pillar([(-60, 36, 20, 10, 7, -50), (10, 33, 24, 9, 7, -55), (50, 27, 22, 8, 7, -60)], _MUSCLE, mirror=side)
        pillar([(-60, 26, 6, 12, 8, -35), (10, 20, 9, 8, 6, -20), (50, 17, 10, 6, 5, 0)], _MUSCLE, mirror=side)
        pillar([(-60, 8, -3, 7, 4, 15), (50, 8, -3, 7, 4, 15)], _MUSCLE, mirror=side)  # longus colli
        pillar(
            [(-60, 10, -49, 9, 3, 12), (0, 11, -46, 9, 3, 15), (18, 8, -45, 8, 3, 12)], _MUSCLE, mirror=side, high=20
        )
        builder.tube([(22, -28, 30), (14, -46, 36), (8, -58, 38)], 5.0, _MUSCLE, mirror=side)  # digastric, front belly
        pillar([(30, 37, -16, 4, 11, 8), (70, 42, -14, 5, 12, 8)], _MUSCLE, mirror=side, low=40)  # pterygoid
        pillar([(30, 46, -22, 4, 12, 15), (70, 52, -16, 6, 14, 15)], _MUSCLE, mirror=side, low=44)  # masseter
    builder.ellipsoid((0, -38, 58), (26, 25, 25), _MUSCLE, turn_deg=4)  # tongue and floor of the mouth
    builder.pillar([(20, 0, -13, 19, 9), (60, 0, -13, 22, 9)], _MUSCLE, low=12, exponent=2.5)  # walls of the pharynx


def _paint_organs(builder: AnatomyBuilder) -> None:
    for side in _SIDES:
        builder.ellipsoid((15, -25, -38), (7, 9, 19), (0, Tissue.THYROID), mirror=side, turn_deg=5)
        builder.ellipsoid((31, -31, 32), (8, 14, 11), (0, Tissue.SALIVARY_GLAND), mirror=side)  # submandibular
        builder.ellipsoid((52, -2, 60), (8, 14, 17), (0, Tissue.SALIVARY_GLAND), mirror=side)  # parotid
    builder.pillar([(-60, 3, -9, 7, 4.5), (-5, 0, -9, 7, 4.5)], _MUSCLE, high=0)  # oesophagus
    builder.pillar([(-60, 0, -26, 9, 8), (-15, 0, -28, 9, 9), (-5, 0, -28, 7, 10)],
                  (-1.8, Tissue.WALL), (0, Tissue.AIRWAY), high=0)  # fmt: skip
    builder.pillar([(-8, 0, -29, 8, 11), (6, 0, -29, 8, 13), (16, 0, -25, 11, 10)],
                  (-5.5, Tissue.MUSCLE), (-3.0, Tissue.CARTILAGE), (-1.0, Tissue.WALL), (0, Tissue.AIRWAY),
                  low=-5, high=14)  # fmt: skip
    builder.pillar([(10, 0, -19, 12, 7), (70, 0, -16, 13, 6)], (-1.5, Tissue.WALL), (0, Tissue.AIRWAY), low=14)
    through = [(0, -27, -24), (0, -28, 2), (0, -25, 12), (0, -18, 24)]  # one way for the air, from wall to wall
    builder.tube(through, 5.5, (0, Tissue.AIRWAY), shift_mm=0.3, wiggle_mm=0.2)


def _paint_bones(builder: AnatomyBuilder) -> None:
    hyoid = [(23, -18, 22), (18, -34, 20), (9, -43, 19), (0, -45, 19), (-9, -43, 19), (-18, -34, 20), (-23, -18, 22)]
    builder.tube(hyoid, (1.8, 2.4, 3, 3.4, 3, 2.4, 1.8), *BONE, wiggle_mm=0.2)
    half = [(47, 2, 80), (46, -4, 62), (43, -16, 51), (36, -36, 46), (25, -54, 43), (12, -63, 42)]
    jaw = [*half, (0, -65, 41.5), *[(-x, y, z) for x, y, z in reversed(half)]]
    builder.tube(jaw, 4.6, *BONE, wiggle_mm=0.2, stretch=2.2)
    teeth = [(28, -30, 66), (25, -45, 65), (14, -58, 64), (0, -62, 64), (-14, -58, 64), (-25, -45, 65), (-28, -30, 66)]
    builder.tube(teeth, 4.5, *BONE, wiggle_mm=0.2, stretch=1.6)


def _paint_vessels(builder: AnatomyBuilder) -> list[Solid]:
    """Arteries and veins, with the small branches that cross the fat in which nodes lie. Returns the large ones."""
    artery, vein = (0.0, Tissue.ARTERY), (0.0, Tissue.VEIN)
    chains, rng = [], builder.rng
    for side in _SIDES:
        common = [(18, -12, -85), (18, -12, -60), (20, -13, -25), (23, -11, 8)]
        inner = [*common, (26, -4, 28), (25, 0, 60)]
        chains.append(builder.tube(inner, (3.7, 3.7, 3.6, 4.2, 2.9, 2.7), artery, mirror=side, open_ends=True))
        builder.tube([(22, -12, 6), (28, -15, 24), (33, -9, 44), (38, -3, 66)], (3, 2.6, 2.3, 1.9), artery, mirror=side)
        width = float(rng.uniform(0.75, 1.3))  # the two jugular veins are seldom equally wide
        jugular = [(27, -17, -60), (31, -14, -30), (34, -6, 5), (34, 3, 35), (30, 8, 60)]
        radii = np.array([6.5, 6.2, 5.8, 5.2, 4.6]) * width
        chains.append(builder.tube(jugular, radii, vein, mirror=side, open_ends=True))
        builder.tube([(40, -20, -58), (53, -6, -22), (57, -3, 12), (57, 2, 50)], 2.2, vein, mirror=side, open_ends=True)
        builder.tube([(14, -54, -60), (12, -53, 0), (14, -50, 34)], 1.6, vein, mirror=side)
        builder.tube([(15, 5, -60), (15, 9, 0), (16, 9, 60)], 1.8, artery, mirror=side, open_ends=True)
        builder.tube([(33, -5, 22), (39, -18, 27), (42, -32, 33), (46, -40, 52)], (2.6, 2.2, 2, 1.8), vein, mirror=side)
        builder.tube(
            [(20, -14, -44), (34, -3, -46), (47, 13, -42), (52, 24, -36)], (2.4, 2.1, 1.8, 1.5), artery, mirror=side
        )
        for _ in range(int(rng.integers(2, 5))):  # nameless branches through the posterior triangle
            z, drop = rng.uniform(-55, 45), rng.uniform(-18, 18)
            branch = [(34, -3, z), (41, 9, z + drop / 3), (46, 20, z + drop)]
            builder.tube(branch, (2.2, 1.9, 1.4), vein, mirror=side, wiggle_mm=2.0)
    return chains
