"""A configuration of nnU-Net plans on its own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from lnsegfm.nnunet.environment import nnunet_environment


def resolve_configuration(plans: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A configuration of plans with what it inherits, in today's form, on its own."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    found = PlansManager(copy.deepcopy(dict(plans))).get_configuration(name).configuration
    configuration = copy.deepcopy(dict(found))
    configuration.pop("inherits_from", None)
    return configuration


def not_for_volumes(configuration: Mapping[str, Any]) -> str | None:
    """Why a configuration cannot segment volumes on its own, and what to use; None where it can.

    The text goes on from the configuration's name.
    """
    if len(configuration["patch_size"]) != 3:
        return "is 2D. Use a 3D model, such as 3d_fullres."
    if configuration.get("previous_stage"):
        return "is the later stage of a cascade, which needs another model's masks. Use 3d_fullres or 3d_lowres."
    return None


def patch_dimensions(plans: Any, name: str) -> int | None:
    """Axes of a configuration's patch, 2 or 3; None where the plans do not say it. nnU-Net is not loaded for it."""
    configurations, seen = plans.get("configurations") if isinstance(plans, Mapping) else None, set[str]()
    while isinstance(configurations, Mapping) and name not in seen:
        seen.add(name)
        stated = configurations.get(name)
        if not isinstance(stated, Mapping):
            break
        if isinstance(patch := stated.get("patch_size"), list | tuple):
            return len(patch)
        name = str(stated.get("inherits_from"))
    return None


def previous_stage(plans: Mapping[str, Any], name: str) -> str | None:
    """Name of the configuration whose masks a cascade's later stage takes; None of any other configuration."""
    stated = plans["configurations"].get(name, {}).get("previous_stage")
    return str(stated) if stated else None


def network_class(plans: Mapping[str, Any], name: str) -> str:
    """Import path of the network that a configuration of plans names."""
    with nnunet_environment():
        return str(resolve_configuration(plans, name)["architecture"]["network_class_name"])


def plans_managers(plans: Mapping[str, Any], name: str) -> tuple[Any, Any]:
    """nnU-Net's ``PlansManager`` of plans and its ``ConfigurationManager`` of one of their configurations."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(dict(plans))
    return manager, manager.get_configuration(name)
