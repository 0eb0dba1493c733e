"""Names that say left and right, as clinics, public data sets and several languages write them."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest

from lnsegfm.datasets.sided_labels import lone_sides, side_pairs

PAIRS = """
Parotid_L Parotid_R|LeftParotid RightParotid|L parotid R parotid|Lt Parotid Rt Parotid|LT_PAROTID RT_PAROTID
LParotid RParotid|ParotidL ParotidR|parotid-l parotid-r|left kidney right kidney|kidney_left kidney_right
leftkidney rightkidney|kidneyleft kidneyright|lkidney rkidney|Kidney left right Kidney|Parotis sin. Parotis dex.
Glandula parotidea sinistra Glandula parotidea dextra|parotide sx parotide dx|Lunge links Lunge rechts
linke Niere rechte Niere|Niere_li Niere_re|linkeNiere rechteNiere|Parotide gauche Parotide droite|rein gauche rein droit
Parotide_G Parotide_D|riñón izquierdo riñón derecho|parótida izq parótida der|rim esquerdo rim direito
venstre lunge højre lunge|vänster njure höger njure|nerka lewa nerka prawa|левая почка правая почка
левый глаз правый глаз|左腮腺 右腮腺
OpticNrv_L_PRV05 OpticNrv_R_PRV05|LN_Ax_L1_L LN_Ax_L1_R|Lung_LUL Lung_RUL|LAG RAG|LV RV|4L 4R|Level_IIaL Level_IIaR
heart_atrium_left heart_atrium_right|L R|left right|rib_left_1 rib_right_1|nerve_L5_L nerve_L5_R|VL VR
LEFT_OPTIC_NERVE RIGHT_OPTIC_NERVE|Hüfte_links Hüfte_rechts|LeftSubmandibular RightSubmandibular|l_eye r_eye
"""


def listed_pairs() -> list[tuple[str, str]]:
    """Each pair of the text above: its two names have the same number of words."""
    found = []
    for text in PAIRS.replace("\n", "|").split("|"):
        words = text.split()
        if words:
            half = len(words) // 2
            found.append((" ".join(words[:half]), " ".join(words[half:])))
    return found


@pytest.mark.parametrize(("left", "right"), listed_pairs())
def test_pairs_of_every_convention(left: str, right: str) -> None:
    assert side_pairs([right, "cord", left]) == [(left, right)]
    assert lone_sides([left, "cord", right]) == []


LONE = """LeftParotid|Parotid_R|Lung_R|4L|Station 4R|kidney right|Left_Lobe_Liver|left_atrium|right_ventricle|LParotid
ParotidL|leftkidney|Parotis links|linke Lunge|Parotide gauche|ovaire droit|左腮腺|Glnd_Submand_L
atrial_appendage_left|Lt Parotid
Lung_L_LUL|Parotis sin|parotide dx|kidney_left_cyst|LeftEye|Eye_L_PRV"""
NEITHER = """liver|Larynx|node|lymph_node|LN|LNode|LymphNode|vertebrae_L4|L4|L1|left_and_right_lung|Lungs|Parotids
L_Spine|Lips|Glottis|cleft|upright|tumor|GTVn|BrainStem|rectum|R|larynx_cleft|Bowel_Small|Level_G|Reirradiation
lumbar vertebra L|LV|RV|rein
1|label_2|7|Kidneys|Lens|delirium|brightness|Femur head|bilateral""".replace("|R|", "|")


@pytest.mark.parametrize("name", LONE.replace("\n", "|").split("|"))
def test_one_side_alone(name: str) -> None:
    assert lone_sides(["cord", name]) == [name]


@pytest.mark.parametrize("name", NEITHER.replace("\n", "|").split("|"))
def test_names_of_no_side(name: str) -> None:
    assert lone_sides(["cord", name]) == side_pairs(["cord", name]) == []


def test_letters_that_count_are_no_sides() -> None:
    zones = [f"zone_{letter}" for letter in "ABCDEFGHIJKLMNOPQRS"]
    assert side_pairs(zones) == lone_sides(zones) == []
    assert side_pairs(["Level_C", "Level_D", "Level_G"]) == []
    assert side_pairs([f"vertebrae_L{n}" for n in range(1, 6)] + ["sacrum"]) == []
    assert side_pairs(["Parotid_L", "Parotid_R", "Parotid_B"]) == [("Parotid_L", "Parotid_R")]


def test_each_label_is_in_one_pair() -> None:
    names = ["Kidney_L", "Kidney_R", "LKidney", "RKidney", "Lung_L"]
    pairs = side_pairs(names)
    assert len({name for pair in pairs for name in pair}) == 2 * len(pairs)
    assert lone_sides(["Kidney_L", "Kidney_R", "Lung_L"]) == ["Lung_L"]


def test_the_classes_of_totalsegmentator() -> None:
    table = json.loads(files("lnsegfm.registry").joinpath("totalsegmentator.json").read_text())
    names = sorted({name for name in _strings(table) if name.endswith(("_left", "_right")) or name.startswith("vert")})
    expected = [(f"{n[:-5]}_left", f"{n[:-5]}_right") for n in names if n.endswith("_left")]
    expected += [(n, n.replace("_left_", "_right_")) for n in names if "_left_" in n]
    assert len(expected) > 10
    pairs = side_pairs(names)
    assert {pair for pair in expected if pair[1] in names} <= set(pairs)
    assert not any("vertebrae" in name for pair in pairs for name in pair)


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in (*value, *value.values()) for text in _strings(item)]
    return [text for item in value for text in _strings(item)] if isinstance(value, list) else []
