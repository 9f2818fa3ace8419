"""Parameter files of elastix (``TransformParameters.0.txt``): points in mm, LPS, from fixed to moving.

Translation, Euler, similarity, affine and cubic B-spline transforms are read, and ITK's files that a parameter file
names (``(Transform "File")``); and those that they start from (``InitialTransformParameterFileName``) where they are
composed: a point goes through the first file of the chain first. Other kinds elastix writes itself in forms that are
read: a composite by ``(WriteITKCompositeTransform "true")``, a field by ``transformix -def all``.

Source: elastix's manual, and itk-elastix 0.25.4 (``tests/interop``).
"""

import math
import re
from collections.abc import Collection
from pathlib import Path

import SimpleITK as sitk  # noqa: N813
from bundle.io.files import check_file
from bundle.io.formats.common import refused
from bundle.io.itk import read_itk
from bundle.io.itk_composites import transform_from_itk
from bundle.spatial import Grid, SpatialTransform

__all__ = ["files_of", "read_parameters"]

Parameters = dict[str, list[str]]
COMMENT = re.compile(r'("[^"\n]*")|//[^\n]*')
LINE = re.compile(r'^\s*\((\w+)((?:\s+(?:"[^"]*"|[^\s")]+))*)\s*\)', re.MULTILINE)
INITIAL = ("InitialTransformParameterFileName", "InitialTransformParametersFileName")  # of now, and up to elastix 5.0
NONE = "NoInitialTransform"
SPLINE_ORDER = "3"
CIRCLE = "the files that it starts from go round in a circle"
ADVICE = 'let elastix write a composite, (WriteITKCompositeTransform "true"), or transformix -def all a field'


def read_parameters(path: Path, fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    """Read a file and those that it starts from.

    Raises:
        FileNotFoundError: a file of the chain is missing.
        ValueError: of another kind, of another dimension, incomplete, or of numbers that are not finite.
    """
    composite = sitk.CompositeTransform(3)
    for file in _chain(path):
        composite.AddTransform(_transform(_parse(file), file))  # the last added is applied first
    return transform_from_itk(composite, fixed_grid, moving_grid)


def files_of(path: Path) -> list[Path]:
    """List the files that ``read_parameters`` reads: this one, those that it starts from, and those that they name.

    Raises:
        FileNotFoundError: a file of the chain is missing.
        ValueError: the chain is no composition, goes round in a circle, or leaves open which file it names.
    """
    chain = _chain(path)
    return chain + [named for file in chain if (named := _file_of(_parse(file), file))]


def _parse(path: Path) -> Parameters:
    check_file(path, "transform")
    text = COMMENT.sub(lambda found: found[1] or "", path.read_text(errors="replace"))
    return {key: _words(rest) for key, rest in LINE.findall(text)}


def _words(text: str) -> list[str]:
    return [quoted or bare for quoted, bare in re.findall(r'"([^"]*)"|(\S+)', text)]


def _chain(path: Path) -> list[Path]:
    """List a file, the one that it starts from, and so on."""
    files = [path]
    while True:
        parameters = _parse(files[-1])
        initial = next((parameters[key][0] for key in INITIAL if parameters.get(key)), NONE)
        if initial in (NONE, ""):
            return files
        if parameters.get("HowToCombineTransforms", ["Compose"])[0] != "Compose":
            raise refused(path, f"it adds its transforms instead of composing them: {ADVICE}")
        files.append(_find_initial(initial, files))


def _find_initial(named: str, files: list[Path]) -> Path:
    """Find the file that the last one of a chain starts from."""
    seen = {file.resolve() for file in files}
    if found := _find(named, files[-1], seen):
        return found
    if any(place.is_file() for place in _places(named, files[-1])):
        raise refused(files[0], CIRCLE)
    raise FileNotFoundError(f"There is no file {named}, which the transform starts from ({files[-1]}).")


def _find(named: str, file: Path, seen: Collection[Path] = ()) -> Path | None:
    """Find the file that another one names, where elastix wrote it or beside the file, along with which it was moved.

    Raises:
        ValueError: of a relative path, files that differ are in several of these places.
    """
    found = [place for place in _places(named, file) if place.is_file() and place.resolve() not in seen]
    if Path(named).is_absolute() or not found:
        return next(iter(found), None)
    if len({place.read_bytes() for place in found}) > 1:
        places = " or ".join(map(str, dict.fromkeys(found)))
        raise refused(file, f"{named} in it may be {places}: write the whole path into it")
    return found[0]


def _places(named: str, file: Path) -> list[Path]:
    """List where a file may be that another one names.

    A bare name is beside it. A relative path was elastix's from its working folder: mostly the one around the file's.
    """
    path, folder = Path(named), file.parent
    if path.is_absolute() or path.name == named:
        return list(dict.fromkeys([folder / path, folder / path.name]))
    return [folder / path, folder.parent / path, Path.cwd() / path, folder / path.name]


def _transform(parameters: Parameters, path: Path) -> sitk.Transform:
    """Build the transform of one file."""
    kind = parameters.get("Transform", ["none"])[0]
    if file := _file_of(parameters, path):
        return read_itk(file)
    maker = MAKERS.get(kind)
    if maker is None or parameters.get("FixedImageDimension", ["3"])[0] != "3":
        raise refused(path, f"it is elastix's {kind}, which is not read in three dimensions: {ADVICE}")
    try:
        transform = maker(parameters)
        if "CenterOfRotationPoint" in parameters and kind not in ("BSplineTransform", "TranslationTransform"):
            transform.SetCenter(_numbers(parameters, "CenterOfRotationPoint"))
        transform.SetParameters(_numbers(parameters, "TransformParameters"))
    except (KeyError, RuntimeError, ValueError) as error:
        raise refused(path, f"its parameters are no {kind} of three dimensions ({_first_line(error)})") from error
    return transform


def _file_of(parameters: Parameters, path: Path) -> Path | None:
    """Find the file of ITK's that a parameter file names as its transform; None where it holds that itself."""
    if parameters.get("Transform", ["none"])[0] != "File" or not parameters.get("TransformFileName"):
        return None
    named = parameters["TransformFileName"][0]
    return _find(named, path) or path.with_name(Path(named).name)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error).strip() else ''}"


def _numbers(parameters: Parameters, key: str) -> list[float]:
    numbers = [float(word) for word in parameters[key]]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"NaN or infinite numbers in {key}")
    return numbers


def _euler(parameters: Parameters) -> sitk.Transform:
    transform = sitk.Euler3DTransform()
    transform.SetComputeZYX(parameters.get("ComputeZYX", ["false"])[0] == "true")
    return transform


def _spline(parameters: Parameters) -> sitk.Transform:
    if parameters.get("BSplineTransformSplineOrder", [SPLINE_ORDER])[0] != SPLINE_ORDER:
        raise ValueError("of another order than 3")
    if parameters.get("UseCyclicTransform", ["false"])[0] == "true":
        raise ValueError("cyclic")
    transform = sitk.BSplineTransform(3, 3)
    keys = ("GridSize", "GridOrigin", "GridSpacing")
    size, origin, spacing = (_numbers(parameters, key) for key in keys)
    if any(_numbers(parameters, "GridIndex")):
        raise ValueError("a grid that does not start at index 0")
    direction = _numbers(parameters, "GridDirection")  # column by column
    rows = [direction[row + 3 * column] for row in range(3) for column in range(3)]
    transform.SetFixedParameters([*size, *origin, *spacing, *rows])
    return transform


MAKERS = {
    "TranslationTransform": lambda _: sitk.TranslationTransform(3),
    "EulerTransform": _euler,
    "SimilarityTransform": lambda _: sitk.Similarity3DTransform(),
    "AffineTransform": lambda _: sitk.AffineTransform(3),
    "BSplineTransform": _spline,
}
