"""A GPU that is simulated on the CPU: which tensor lies where, what crosses over, and what makes the host wait.

torch's own `FakeTensorMode` knows shapes without values, so code that looks at values stops there, and its backward
pass needs a driver. Here tensors are ordinary ones on the CPU, with their values and gradients; a mode over torch's
Python functions notes on each of them which device it is said to be on, answers ``tensor.device`` accordingly, refuses
what torch would refuse (operands on two devices, ``numpy()`` of a GPU's tensor), and counts what costs time on a real
GPU: copies between the devices and reads of a value by the host. `tests.test_simulated_gpu` holds it against
`FakeTensorMode`.

What it cannot show: kernels that a GPU lacks, its precision (autocast is off), its memory.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
READS = {
    *("item", "tolist", "__bool__", "__int__", "__float__", "__index__", "nonzero", "masked_select", "unique"),
    *("bincount", "equal", "allclose", "argwhere", "is_nonzero", "__contains__"),
}
"""Functions that wait for the GPU, because what they give, or the shape of it, depends on values."""
TO_NUMPY = {"numpy", "__array__"}
ANYWHERE = {"copy_", "__setitem__"}
"""Functions that torch lets copy from one device to the other without being asked in so many words."""


class SimulatedGPU(TorchFunctionMode):
    """While it is entered, ``cuda`` is a device.

    Attributes:
        reads: Values of GPU tensors that the host waited for, by function.
        to_host: Tensors copied to the CPU, by function.
        to_gpu: Tensors copied to the GPU, by function.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()
        self.to_host: Counter[str] = Counter()
        self.to_gpu: Counter[str] = Counter()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", str(func))
        if name in ("__get__", "__set__"):
            return self._attribute(func, name, args)
        if name in ("get_device", "is_pinned"):
            return device_of(args[0]).index or 0 if name == "get_device" else False
        if name == "pin_memory":
            return args[0]
        if name == "_has_compatible_shallow_copy_type":  # asked by Module.to of a parameter and its copy elsewhere
            return func(*args, **kwargs)
        if name in ("to", "cpu", "cuda"):
            return self._move(name, args, kwargs)
        tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
        place = self._place(name, args, tensors)
        if place == GPU and name in TO_NUMPY:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        if place == GPU and (name in READS or (name == "__getitem__" and _masks(args[1]))):
            self.reads[name] += 1
        if kwargs.get("device") is not None:
            place = _full(torch.device(kwargs["device"]))
            kwargs["device"] = CPU
            if tensors and place != device_of(tensors[0]) and name in ("tensor", "as_tensor", "asarray"):
                self._count(name, place)
        result = func(*args, **kwargs)
        return tree_map(lambda leaf: _put(leaf, place) if isinstance(leaf, Tensor) else leaf, result)

    def _attribute(self, func: Any, name: str, args: tuple[Any, ...]) -> Any:
        owner = getattr(func, "__self__", None)
        attribute, tensor = getattr(owner, "__name__", ""), args[0]
        if name == "__set__":
            func(*args)
            if attribute == "data":
                _put(tensor, device_of(args[1]))
            return None
        place = device_of(tensor)
        if attribute in ("device", "is_cuda", "is_cpu"):
            return {"device": place, "is_cuda": place == GPU, "is_cpu": place == CPU}[attribute]
        result = func(*args)
        return _put(result, place) if isinstance(result, Tensor) else result

    def _move(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        tensor, *rest = args
        target = GPU if name == "cuda" else CPU if name == "cpu" else None
        given: list[Any] = []
        for value in rest if name == "to" else ():
            if isinstance(value, str | torch.device) or (isinstance(value, int) and not isinstance(value, bool)):
                target = _full(torch.device(value))
            elif isinstance(value, Tensor):
                target = device_of(value)
                given.append(value.dtype)
            elif isinstance(value, torch.dtype):
                given.append(value)
        if (wanted := kwargs.pop("device", None)) is not None:
            target = _full(torch.device(wanted))
        here = device_of(tensor)
        target = target if target is not None else here
        result: Tensor = tensor.to(*given, **kwargs) if given or kwargs.get("copy") else tensor
        if target != here:
            self._count(name, target)
            result = result.clone() if result is tensor else result
        return _put(result, target)

    def _place(self, name: str, args: tuple[Any, ...], tensors: list[Tensor]) -> torch.device:
        """The device that a function computes on; as in torch, a single number on the CPU goes with a GPU's tensors."""
        places = {device_of(tensor) for tensor in tensors}
        if len(places) < 2:
            return next(iter(places), CPU)
        if all(tensor.dim() == 0 for tensor in tensors if device_of(tensor) == CPU):
            return GPU
        target = device_of(args[0]) if isinstance(args[0], Tensor) else CPU
        if name in ANYWHERE and isinstance(args[-1], Tensor):
            self._count(name, target)
            return target
        if name in ("__getitem__", "index_put_") and target == GPU:  # indices on the CPU are copied there
            self._count(name, target)
            return target
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! ({name})"
        )

    def _count(self, name: str, target: torch.device) -> None:
        (self.to_gpu if target == GPU else self.to_host)[name] += 1


def device_of(tensor: Tensor) -> torch.device:
    """Where a tensor is said to be."""
    place: torch.device = tensor.__dict__.get("simulated_device", CPU)
    return place


@contextlib.contextmanager
def simulated_gpu() -> Iterator[SimulatedGPU]:
    """Enter the mode; autocast and the gradient scaler say that there is no CUDA, which is as it should be."""
    make_subclass, generator = Tensor._make_subclass, torch.Generator

    def on_its_device(cls: type[Tensor], data: Tensor, *more: Any) -> Tensor:
        """What `torch.nn.Parameter` is made by; no mode hears of it."""
        return _put(make_subclass(cls, data, *more), device_of(data))

    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch, SimulatedGPU() as gpu:
        warnings.filterwarnings("ignore", message=".*CUDA is not available.*")
        warnings.filterwarnings("ignore", message=".*device_type of 'cuda'.*")
        patch.setattr(Tensor, "_make_subclass", staticmethod(on_its_device))
        patch.setattr(torch, "Generator", lambda _="cpu": generator())
        yield gpu


def _put(tensor: Tensor, place: torch.device) -> Tensor:
    if device_of(tensor) != place:
        tensor.__dict__["simulated_device"] = place
    return tensor


def _full(device: torch.device) -> torch.device:
    return GPU if device.type == "cuda" else device


def _masks(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, Tensor) and part.dtype == torch.bool for part in parts)
