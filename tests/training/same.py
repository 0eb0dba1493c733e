"""Whether two prepared scans are the same."""

from __future__ import annotations

import numpy as np
import torch

from lnsegfm.transforms.augmentation.prepared_case import PreparedCase, in_memory


def same(one: PreparedCase, other: PreparedCase) -> bool:
    return (
        one.name == other.name
        and torch.equal(in_memory(one.image), in_memory(other.image))
        and torch.equal(in_memory(one.labels), in_memory(other.labels))
        and list(one.locations) == list(other.locations)
        and all(np.array_equal(places, other.locations[key]) for key, places in one.locations.items())
    )
