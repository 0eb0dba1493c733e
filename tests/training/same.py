"""Whether two prepared scans are the same."""

from __future__ import annotations

import numpy as np
import torch

from lnsegfm.transforms.augmentation.prepared_case import PreparedCase


def same(one: PreparedCase, other: PreparedCase) -> bool:
    return (
        one.name == other.name
        and torch.equal(one.image, other.image)
        and torch.equal(one.labels, other.labels)
        and list(one.locations) == list(other.locations)
        and all(np.array_equal(places, other.locations[key]) for key, places in one.locations.items())
    )
