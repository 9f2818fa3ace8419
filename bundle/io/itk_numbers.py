"""The numbers in a transform file of ITK: as many as its kind of transform has, and numbers at all.

ITK 5.4 takes more of them than it needs. Of too few it uses what lies behind them in memory (Euler, versor, similarity
and scale transforms), it stops at the first that is none, and without fixed parameters it leaves the identity.
"""

import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from bundle.io.integrity import DamagedFileError, check_whole

__all__ = ["check_numbers", "check_values", "is_list"]

TEXT = "#Insight Transform File"
CENTRE = (3,)
CENTRE_AND_ORDER = (3, 4)  # of an Euler transform's angles; files of before ITK 4.7 lack it
OF_THREE_DIMENSIONS: dict[str, tuple[int, Sequence[int]]] = {
    **dict.fromkeys(("AffineTransform", "MatrixOffsetTransformBase", "Rigid3DTransform"), (12, CENTRE)),
    **dict.fromkeys(("ScalableAffineTransform", "AzimuthElevationToCartesianTransform"), (12, CENTRE)),
    **dict.fromkeys(("CenteredAffineTransform", "FixedCenterOfRotationAffineTransform"), (15, CENTRE)),
    "Euler3DTransform": (6, CENTRE_AND_ORDER),
    "CenteredEuler3DTransform": (9, CENTRE_AND_ORDER),
    "QuaternionRigidTransform": (7, CENTRE),
    "VersorTransform": (3, CENTRE),
    "VersorRigid3DTransform": (6, CENTRE),
    "Similarity3DTransform": (7, CENTRE),
    "ScaleTransform": (3, CENTRE),
    "ScaleLogarithmicTransform": (3, CENTRE),
    "ScaleVersor3DTransform": (9, CENTRE),
    "ComposeScaleSkewVersor3DTransform": (12, CENTRE),
    "ScaleSkewVersor3DTransform": (15, CENTRE),
    "TranslationTransform": (3, (0,)),
}
"""How many parameters and fixed parameters each kind has; ITK itself refuses a wrong number of the others."""


def is_list(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file holds several transforms outside a composite: SimpleITK would take the first of them."""
    content = Path(path).read_bytes()
    count = max(content.count(b"\nTransform:"), content.count(b"TransformType"))  # as text, in HDF5
    return count > 1 and b"CompositeTransform" not in content


def check_numbers(path: str | os.PathLike[str]) -> None:
    """Count the numbers in a transform file, text or MATLAB's, before ITK reads it; of HDF5 see that it is whole.

    Args:
        path: of any file; the text of ITK is told by its first line, MATLAB's by ``.mat``.

    Raises:
        ValueError: too few numbers, too many, or one that is none; a file that is cut off.
    """
    try:
        check_whole(path)
    except DamagedFileError as error:
        raise ValueError(f"The transform ({path}) cannot be read: {error}.") from error
    with open(path, "rb") as file:
        is_text = TEXT.encode() in file.read(256)
    if is_text:
        text = Path(path).read_text(errors="replace")
        for kind, lines in _of_text(text):
            _check_counts(kind, {name: _count(name, words, path) for name, words in lines.items()}, path)
    elif Path(path).name.lower().endswith(".mat"):
        for kind, counts in _of_matlab(path):
            _check_counts(kind, counts, path)


def check_values(transform: sitk.Transform, path: str | os.PathLike[str]) -> None:
    """Count the numbers of a transform that was read, and refuse NaN and infinite ones: of HDF5, not checked before.

    Args:
        transform: a single one, not a composite.
        path: of its file, for the message.

    Raises:
        ValueError: too few numbers, too many, or one that is none.
    """
    if isinstance(transform, sitk.DisplacementFieldTransform):
        values = sitk.GetArrayViewFromImage(sitk.DisplacementFieldTransform(transform).GetDisplacementField())
    else:
        if transform.GetDimension() == 3:  # before they are asked for: of too few, ITK writes beyond their end
            counts = {"Parameters": transform.GetNumberOfParameters()}
            counts |= {"FixedParameters": transform.GetNumberOfFixedParameters()}
            _check_counts(transform.GetName(), counts, path)
        values = np.array([*transform.GetParameters(), *transform.GetFixedParameters()])
    if not np.isfinite(values).all():
        raise _refused(path, "it holds NaN or infinite numbers")


def _of_text(text: str) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """Yield each transform's kind, as ``Euler3DTransform_double_3_3``, and its words by the name of their line."""
    for block in re.split(r"(?m)^Transform:", text)[1:]:
        kind = block.split(maxsplit=1)[0] if block.split() else ""
        yield kind, {name: line.split() for name, line in re.findall(r"(?m)^(\w+):([^\r\n]*)", block)}


def _count(name: str, words: Sequence[str], path: str | os.PathLike[str]) -> int:
    for word in words if name.endswith("Parameters") else ():
        try:
            if not math.isfinite(float(word)):
                raise ValueError
        except ValueError:
            raise _refused(path, f"it holds '{word}' where a number must be") from None
    return len(words)


def _of_matlab(path: str | os.PathLike[str]) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield each transform's kind and how many numbers it has; nothing of a file that MATLAB did not write so."""
    try:
        from scipy.io import whosmat  # here: few have such files, and it loads sparse matrices and their solvers

        arrays = [(name, math.prod(shape)) for name, shape, _ in whosmat(os.fspath(path))]
    except Exception:  # of many kinds: ITK says what is wrong with it
        return
    following: list[tuple[str, Any]] = [*arrays[1:], ("", 0)]
    for (kind, count), (name, fixed) in zip(arrays, following):
        if kind != "fixed":
            yield kind, {"Parameters": count, "FixedParameters": fixed if name == "fixed" else 0}


def _check_counts(kind: str, counts: dict[str, int], path: str | os.PathLike[str]) -> None:
    """Compare with what a transform of this kind has; one of two dimensions passes here."""
    name, _, types = kind.partition("_")
    if name not in OF_THREE_DIMENSIONS or types.endswith("_2_2"):
        return
    parameters, fixed = OF_THREE_DIMENSIONS[name]
    for what, wanted in (("Parameters", (parameters,)), ("FixedParameters", fixed)):
        found = counts.get(what, 0)
        if found not in wanted:
            raise _refused(path, f"it holds {found} {what} where {_article(name)} has {' or '.join(map(str, wanted))}")


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'AE' else 'a'} {name}"


def _refused(path: str | os.PathLike[str], why: str) -> ValueError:
    return ValueError(f"The transform ({path}) cannot be read: {why}; copy or make it again.")
