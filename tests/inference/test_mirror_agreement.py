"""How far plain and mirrored predictions agree, counted of regions that overlap."""

from __future__ import annotations

import torch

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.evaluation.flags import Overlap
from lnsegfm.evaluation.mask_statistics import FOREGROUND
from lnsegfm.inference.mirror_agreement import MirrorAgreement

KIDNEY = LabelMap.from_dataset_json({"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumour": 2}, [1, 3, 2])


def test_each_region_is_counted_by_itself_over_all_batches():
    draw = torch.Generator().manual_seed(4)
    batches = [torch.randn(2, n, 3, 4, 5, 6, generator=draw) for n in (1, 3)]
    agreement = MirrorAgreement(regions=True)
    for plain, averaged in batches:
        agreement(plain, averaged)
    one, other = (torch.cat([batch[part] for batch in batches]) > 0 for part in (0, 1))
    found = agreement.overlaps(KIDNEY)
    for number, name in enumerate(["kidney", "masses", "tumour"]):
        a, b = one[:, number], other[:, number]
        assert found[name] == Overlap(int((a & b).sum()), int(a.sum()), int(b.sum()))
    a, b = one.any(1), other.any(1)
    assert found[FOREGROUND] == Overlap(int((a & b).sum()), int(a.sum()), int(b.sum()))
    assert MirrorAgreement(regions=True).overlaps(KIDNEY)["tumour"] == Overlap(0, 0, 0)
