"""What a segment is, in the words of SNOMED CT that DICOM gives it, by the name of a label.

DICOM asks for a category and a type (PS3.16, CID 7150 and CID 7151). A lymph node is the *Anatomical Structure*
(91723000) *Lymph Node* (59441001): a mask that outlines nodes does not say that they are diseased. A nodal gross tumour
volume (GTVn) does say so: it is the *Morphologically Abnormal Structure* (49755003) *Neoplasm, Secondary* (14799000) in
the region *Lymph Node*. A clinical or planning target volume (CTVn, PTVn) is neither: it is a region drawn around
nodes, so it stays *Tissue* like everything that the table does not know.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class Code:
    """A coded concept: its value, the scheme it belongs to (SCT is SNOMED CT) and what it means in English."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class LabelCodes:
    """What a label's segment is.

    Args:
        category: Segmented property category.
        type: Segmented property type.
        colour: Recommended display colour (red, green, blue; 0 to 255).
        region: Anatomic region it lies in, where the type alone does not say it.
        side: Left or right, for a structure of which there are two.
    """

    category: Code
    type: Code
    colour: Rgb
    region: Code | None = None
    side: Code | None = None


ANATOMY = Code("91723000", "SCT", "Anatomical Structure")
ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
TISSUE = Code("85756007", "SCT", "Tissue")
LYMPH_NODE = Code("59441001", "SCT", "Lymph Node")
SECONDARY = Code("14799000", "SCT", "Neoplasm, Secondary")
NEOPLASM = Code("108369006", "SCT", "Neoplasm")
LEFT = Code("7771000", "SCT", "Left")
RIGHT = Code("24028007", "SCT", "Right")

_NODE = LabelCodes(ANATOMY, LYMPH_NODE, (255, 170, 0))
_NODAL_TUMOUR = LabelCodes(ABNORMAL, SECONDARY, (230, 60, 60), region=LYMPH_NODE)
_TUMOUR = LabelCodes(ABNORMAL, NEOPLASM, (200, 40, 120))

# Further colours, for what the table does not know: distinct on grey, also to eyes that see red and green alike.
_PALETTE: tuple[Rgb, ...] = (
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)

_ORGANS: dict[str, tuple[str, str, Rgb]] = {
    "aorta": ("15825003", "Aorta", (224, 97, 76)),
    "bladder": ("89837001", "Bladder", (222, 154, 132)),
    "brain": ("12738006", "Brain", (250, 250, 225)),
    "brainstem": ("119238007", "Brain Stem", (240, 200, 170)),
    "carina": ("28700002", "Carina", (182, 228, 255)),
    "esophagus": ("32849002", "Esophagus", (211, 171, 143)),
    "heart": ("80891009", "Heart", (206, 110, 84)),
    "kidney": ("64033007", "Kidney", (185, 102, 83)),
    "larynx": ("4596009", "Larynx", (150, 208, 243)),
    "liver": ("10200004", "Liver", (221, 130, 101)),
    "lung": ("39607008", "Lung", (197, 165, 145)),
    "mandible": ("91609006", "Mandible", (241, 214, 145)),
    "pancreas": ("15776009", "Pancreas", (249, 180, 111)),
    "parotid": ("45289007", "Parotid gland", (160, 200, 120)),
    "spinalcord": ("2748008", "Spinal cord", (244, 214, 49)),
    "spleen": ("78961009", "Spleen", (157, 108, 162)),
    "stomach": ("69695003", "Stomach", (216, 132, 105)),
    "thyroid": ("69748006", "Thyroid", (62, 162, 114)),
    "trachea": ("44567001", "Trachea", (182, 228, 255)),
    "vertebra": ("51282000", "Vertebra", (226, 202, 134)),
}
_OTHER_NAMES = {"oesophagus": "esophagus", "parotidgland": "parotid", "cord": "spinalcord", "urinarybladder": "bladder"}
_SIDES = {"left": LEFT, "l": LEFT, "lt": LEFT, "right": RIGHT, "r": RIGHT, "rt": RIGHT}
_NODE_WORDS = frozenset({"ln", "lns", "node", "nodes", "lymphnode", "lymphnodes", "lymph"})


def codes_of(label: str) -> LabelCodes:
    """What a label's segment is, by its name; a name that is not known is tissue, in a colour of its own.

    Case, blanks, underscores and numbers do not matter: ``lymph_node``, ``LN 3``, ``RightParotid``, ``Parotid_L``.
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", label)
    words = [w for w in re.split(r"[^a-z]+", spaced.lower()) if w]
    whole = "".join(words)
    if re.match(r"gtv(n|ln)", whole):
        return _NODAL_TUMOUR
    if re.match(r"(gtv|tumou?r)", whole):
        return _TUMOUR
    if not re.match(r"(ctv|ptv|itv)", whole) and _NODE_WORDS & set(words):
        return _NODE
    side = next((_SIDES[w] for w in words if w in _SIDES), None)
    name = "".join(w for w in words if w not in _SIDES)
    name = _OTHER_NAMES.get(name, name)
    if name in _ORGANS:
        value, meaning, colour = _ORGANS[name]
        return LabelCodes(ANATOMY, Code(value, "SCT", meaning), colour, side=side)
    return LabelCodes(TISSUE, TISSUE, _PALETTE[sum(map(ord, label)) % len(_PALETTE)])
