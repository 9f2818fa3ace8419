"""X5, the draft of a BIDS exchange format: HDF5, read and written through h5py (the extra ``x5``).

Points in mm, **RAS**, from fixed to moving. A node is a 4×4 matrix (``linear``), or a field on a grid with its own
affine (``nonlinear``, ``densefield``): ``displacements``, or ``deformations``, the points where its voxels go. A
``TransformChain`` names the nodes in the order in which a point goes through them.

Source: the draft as nitransforms 25.1.0 has it (``tests/interop``).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from bundle.io.files import check_room
from bundle.io.formats.common import Vectors, check_matrix, components_last, refused, sampled, turned
from bundle.io.integrity import check_whole
from bundle.io.itk import image_to_itk, linear_to_itk
from bundle.io.itk_composites import transform_from_itk
from bundle.spatial import Grid, SpatialTransform, along_lps, ras_from_lps

__all__ = ["read_x5", "write_x5"]

GROUP, CHAIN = "TransformGroup", "TransformChain"
HEADER_BYTES = 1 << 16  # more than all but the values takes


def read_x5(path: Path, fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    """Read the one chain, or the one node, of a file.

    Raises:
        ValueError: no X5 file, several transforms, a series, or a node of another kind.
    """
    check_whole(path)
    try:
        file = _h5py().File(path, "r")
    except OSError as error:
        raise refused(path, "it is no HDF5 file, which X5 is") from error
    with file:
        if file.attrs.get("Format") != "X5" or GROUP not in file:
            raise refused(path, "it is HDF5, but not X5 (ITK's composites end in .h5 or .hdf5)")
        try:
            parts = [_part(file[GROUP][name], path) for name in _order(file, path)]
        except KeyError as error:
            raise refused(path, f"a part of X5 is missing in it: {error}") from error
    return transform_from_itk(sitk.CompositeTransform(parts[::-1]), fixed_grid, moving_grid)  # the last is first there


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ValueError("X5 files need h5py: pip install h5py.") from error
    return h5py


def _order(file: Any, path: Path) -> list[str]:
    """List the nodes that a point goes through."""
    chains = list(file.get(CHAIN, {}).values())
    nodes = list(file[GROUP])
    if len(chains) > 1 or (not chains and len(nodes) != 1):
        raise refused(path, f"it holds {len(chains)} chains of {len(nodes)} transforms: keep one in a file")
    if not chains:
        return nodes
    named = chains[0][()]
    return (named.decode() if isinstance(named, bytes) else str(named)).split("/")


def _part(node: Any, path: Path) -> sitk.Transform:
    kind, what = node.attrs["Type"], node.attrs.get("SubType", "")
    values = np.asarray(node["Transform"], dtype=np.float64)
    if int(node.attrs.get("ArrayLength", 1)) != 1:
        raise refused(path, "it is of a series, a transform for each volume: keep one")
    if kind == "linear" and values.shape == (4, 4):
        return linear_to_itk(check_matrix(turned(values), path))
    if kind != "nonlinear" or what != "densefield":
        raise refused(path, f"it holds a {kind} transform ({what or 'of no subtype'}): linear and densefield are read")
    return _field(node, values, path)


def _field(node: Any, values: Vectors, path: Path) -> sitk.Transform:
    field = along_lps(components_last(values, path))
    grid = Grid.from_ras(field.shape[:3], np.asarray(node["Domain"]["Mapping"]))
    if node.attrs.get("Representation") != "displacements":
        for rows, points in grid.slabs():
            field[rows] -= points.numpy()
    return sitk.DisplacementFieldTransform(image_to_itk(field, grid, is_vector=True))


def write_x5(transform: SpatialTransform, path: Path) -> None:
    """Write T as one node: its matrix, or its displacements on the fixed image's grid, float32.

    Raises:
        OSError: there is no room for it: HDF5 cannot close a file that it could not write, and ends the process.
    """
    grid = transform.fixed_grid
    if transform.ddf is None:
        attributes = {"Type": "linear", "SubType": "affine", "Representation": "matrix"}
        values = turned(transform.alignment)
    else:
        attributes = {"Type": "nonlinear", "SubType": "densefield", "Representation": "displacements"}
        values = sampled(transform, lambda points, moved: along_lps(moved - points))
    h5py = _h5py()
    check_room(path, HEADER_BYTES + values.nbytes)
    with h5py.File(path, "w") as file:
        file.attrs.update({"Format": "X5", "Version": np.uint16(1)})
        node = file.create_group(f"{GROUP}/0")
        node.attrs.update(attributes | {"ArrayLength": 1, "Metadata": json.dumps({"WrittenBy": "pan-registration"})})
        node.create_dataset("Transform", data=values, compression="gzip" if values.ndim > 2 else None)
        node.create_dataset("DimensionKinds", data=np.array(["space", "space", "space", "vector"], "S"))
        domain = node.create_group("Domain")
        domain.create_dataset("Grid", data=np.uint8(1))
        domain.create_dataset("Size", data=np.array(grid.shape))
        domain.create_dataset("Mapping", data=ras_from_lps(grid.affine))
        domain.attrs["Coordinates"] = "cartesian"
