"""Classes that nnU-Net finds by name: trainers, planners, preprocessors, readers."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from lnsegfm.errors import ModelError
from lnsegfm.nnunet.environment import nnunet_environment

STOCK_TRAINER = "nnUNetTrainer"


def trainer_class(name: str) -> Any:
    """The trainer class of a checkpoint; it builds the network.

    Raises:
        ModelError: nnU-Net has no trainer of that name.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    if name == STOCK_TRAINER:
        return nnUNetTrainer
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        return recursive_find_trainer_class_by_name(name)
    except (RuntimeError, TypeError, AssertionError):  # none of that name; a thing of that name that is no trainer
        raise ModelError(
            f"Trainer {name}: nnU-Net has no trainer of that name. Name its folder in nnUNet_extTrainer."
        ) from None


def finds_trainer(name: str) -> bool:
    """Whether nnU-Net finds a trainer of that name, in its own modules or in the folder of ``nnUNet_extTrainer``."""
    if name == STOCK_TRAINER:
        return True
    with nnunet_environment():
        try:
            trainer_class(name)
        except ModelError:
            return False
    return True


def knows_trainer(name: str) -> bool:
    """Whether nnU-Net itself has a trainer of that name, whatever folders the environment names."""
    if name == STOCK_TRAINER:
        return True
    with nnunet_environment():
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

        found = find_in_nnunet(name, "training.nnUNetTrainer")
    return isinstance(found, type) and issubclass(found, nnUNetTrainer)


def find_in_nnunet(name: str, package: str) -> Any:
    """What nnU-Net finds under a name in one of its packages; None where there is nothing of that name.

    Args:
        name: Of a class or function.
        package: Below ``nnunetv2``, such as ``experiment_planning.experiment_planners``.
    """
    import nnunetv2
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    if not name.isidentifier():
        return None
    folder = Path(nnunetv2.__path__[0], *package.split("."))
    return recursive_find_python_class(str(folder), name, f"nnunetv2.{package}")


def is_own_part(name: str, package: str, base: str | None) -> bool:
    """Whether a name in plans leads to a part of nnU-Net itself: its modules hold names of other packages, too.

    Args:
        name: As plans give it.
        package: Below ``nnunetv2``, where nnU-Net looks for it.
        base: The class that it has to derive from, one of `PART_BASES`; None for a function.
    """
    found = find_in_nnunet(name, package)
    if not getattr(found, "__module__", "").startswith(f"nnunetv2.{package}"):
        return False
    if base is None:
        return not isinstance(found, type)
    module, class_name = PART_BASES[base].rsplit(".", 1)
    return isinstance(found, type) and issubclass(found, getattr(import_module(module), class_name))


PART_BASES = {
    "reader": "nnunetv2.imageio.base_reader_writer.BaseReaderWriter",
    "normalization": "nnunetv2.preprocessing.normalization.default_normalization_schemes.ImageNormalization",
    "preprocessor": "nnunetv2.preprocessing.preprocessors.default_preprocessor.DefaultPreprocessor",
    "label manager": "nnunetv2.utilities.label_handling.label_handling.LabelManager",
}
"""Base classes of the parts that plans name, by kind."""


def normalization_for(channel: str) -> str:
    """Name of the normalisation that nnU-Net gives a channel of that name."""
    from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import get_normalization_scheme

    return str(get_normalization_scheme(channel).__name__)
