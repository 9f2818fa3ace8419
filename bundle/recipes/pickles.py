"""Arrays from pickle files of strangers: to unpickle is to run what the file says, so little may be said."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from bundle.recipes.recipe import Array

__all__ = ["load_arrays"]


def _bytes(text: Any, encoding: Any) -> bytes:
    """Make the bytes that protocols 0 to 2, which have none, write as text; nothing else that this form could say."""
    if type(text) is not str or encoding != "latin1":
        raise pickle.UnpicklingError("this file names _codecs.encode for something else than bytes")
    return text.encode("latin1")


ADMITTED = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    "numpy.core.multiarray._reconstruct": np.zeros(1).__reduce_ex__(4)[0],
    "numpy.core.numeric._frombuffer": np.zeros(1).__reduce_ex__(5)[0],
    "_codecs.encode": _bytes,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles numpy arrays in plain containers, and refuses everything else that a pickle may name."""

    def find_class(self, module: str, name: str) -> Any:
        whole = f"{module.replace('numpy._core', 'numpy.core')}.{name}"  # numpy 2 moved its core
        if whole not in ADMITTED:
            raise pickle.UnpicklingError(f"this file names {whole}")
        return ADMITTED[whole]


def load_arrays(path: Path, count: int) -> list[Array]:
    """Read a pickled tuple of numeric arrays of one shape without running any code of the file's.

    Args:
        path: of the pickle.
        count: how many arrays there must be.

    Returns:
        The arrays.

    Raises:
        ValueError: the file is no pickle, holds anything else, or names anything but arrays.
    """
    try:
        with path.open("rb") as file:
            arrays = _ArrayUnpickler(file).load()
    except OSError:
        raise
    except Exception as error:  # a broken pickle raises of all kinds
        raise ValueError(f"Only pickled numpy arrays are read: {error}.") from error
    if (
        not isinstance(arrays, tuple | list)
        or len(arrays) != count
        or any(not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" for array in arrays)
        or len({array.shape for array in arrays}) != 1
    ):
        raise ValueError(f"It does not hold {count} arrays of numbers of one shape.")
    return list(arrays)
