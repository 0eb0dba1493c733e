"""Datasets of scans and masks that lie otherwise: what is what, shown, and then written as an nnU-Net raw dataset."""

from lnsegfm.datasets.arrange.arrange_dataset import ArrangeResult, arrange
from lnsegfm.datasets.arrange.arrange_options import ArrangeOptions
from lnsegfm.datasets.arrange.arrangement import Arrangement, plan_arrangement

__all__ = ["ArrangeOptions", "ArrangeResult", "Arrangement", "arrange", "plan_arrangement"]
