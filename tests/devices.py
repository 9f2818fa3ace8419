"""Tensors that count as those of a GPU where there is none: what mixes devices raises as it would there."""

from collections.abc import Iterator

import torch
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves, tree_map

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
MOVES = {torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda}
READS = {torch.Tensor.numpy, torch.Tensor.__array__}


def place_of(tensor):
    return getattr(tensor, "_place", CPU)


def placed(tensor, place=GPU):
    """Let a tensor, or what a function returned, count as one of a device."""
    if isinstance(tensor, Iterator):
        return iter([placed(one, place) for one in tensor])
    if isinstance(tensor, torch.Tensor):
        tensor._place = place
    return tensor


class PretendedDevices(TorchFunctionMode):
    """Compute on the CPU, keep account of where tensors would lie, and refuse to mix; a number alone may lie anywhere.

    Example:
        >>> with PretendedDevices():
        ...     (placed(torch.ones(2)) + 1).device
        device(type='cuda', index=0)
    """

    def __enter__(self):
        torch.Tensor.as_subclass = _as_subclass  # torch asks no mode about this one
        return super().__enter__()

    def __exit__(self, *error):
        del torch.Tensor.as_subclass
        return super().__exit__(*error)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func == torch.Tensor.device.__get__:
            return place_of(args[0])
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        places = {place_of(tensor) for tensor in tensors if tensor.dim() > 0}
        place = next(iter(places), place_of(tensors[0]) if tensors else CPU)
        if func in MOVES:
            place, args, kwargs = _moved(func, place, args, kwargs)
        elif func in READS and place != CPU:
            raise TypeError(f"{resolve_name(func)} reads what lies on {place}")
        elif len(places) > 1 and func is not torch.Tensor.copy_:
            raise RuntimeError(f"{resolve_name(func)} mixes {' and '.join(map(str, sorted(places, key=str)))}")
        elif kwargs.get("device") is not None:
            place, kwargs["device"] = torch.device(kwargs["device"]), CPU
        found = func(*args, **kwargs)
        if any(found is tensor for tensor in tensors) and place_of(found) != place:
            found = found.view_as(found)
        return tree_map(lambda one: placed(one, place), found)


def _as_subclass(tensor, kind):
    return placed(torch._C.TensorBase.as_subclass(tensor, kind), place_of(tensor))


def _moved(func, place, args, kwargs):
    """Find where ``to``, ``cpu`` or ``cuda`` brings a tensor, and leave it where it is."""
    if func is not torch.Tensor.to:
        return (CPU if func is torch.Tensor.cpu else GPU), args, {}
    for given in (*args[1:], *kwargs.values()):
        if isinstance(given, torch.Tensor):
            place = place_of(given)
        elif isinstance(given, torch.device | str):
            place = torch.device(given)
    args = tuple(CPU if isinstance(given, torch.device | str) else given for given in args)
    return place, args, {k: CPU if isinstance(v, torch.device | str) else v for k, v in kwargs.items()}
