"""Reading Deformable Spatial Registration objects, ours and others' (PS3.3 C.20.3): strictly, or not at all."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from panreg.dicom.attributes import pydicom_silenced
from panreg.failures import Code, Failure
from panreg.ingest.stack import Stack
from panreg.objects.deformable.vector_grid import BYTES_PER_VECTOR, Matrix, VectorGrid
from pydicom import Dataset, dcmread
from pydicom.uid import DeformableSpatialRegistrationStorage

__all__ = ["DeformableRegistration", "Deformation", "read_deformable_registration"]

MATRIX_TYPES = ("RIGID", "RIGID_SCALE", "AFFINE")
TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Deformation:
    """One item of the object: where the points of the registered frame lie in a source frame.

    ``x_source = post (pre x + D(x))``: the grid is looked up at the point before the first matrix.

    Args:
        source_uid: Frame of Reference UID of the source.
        sop_instance_uids: images that the item names.
        pre: 4×4.
        post: 4×4.
        grid: D, or None where it is zero.
    """

    source_uid: str
    sop_instance_uids: frozenset[str]
    pre: Matrix
    post: Matrix
    grid: VectorGrid | None

    def displacement_at(self, points_mm: npt.ArrayLike | torch.Tensor) -> torch.Tensor:
        """Compute x_source − x for points (…, 3), mm, LPS: float64; NaN where the object defines none."""
        points = np.asarray(points_mm, dtype=np.float64)
        moved = points @ self.pre[:3, :3].T + self.pre[:3, 3]
        if self.grid is not None:
            moved = moved + self.grid.at(points)
        return torch.from_numpy(moved @ self.post[:3, :3].T + self.post[:3, 3] - points)


@dataclass(frozen=True, eq=False)
class DeformableRegistration:
    """A Deformable Spatial Registration object.

    Args:
        header: all of it but the vectors.
        frame_of_reference_uid: of the registered (fixed) space.
        items: in the object's order.
    """

    header: Dataset
    frame_of_reference_uid: str
    items: tuple[Deformation, ...]

    @property
    def deforming(self) -> Deformation:
        """The one item that has a grid.

        Raises:
            Failure: there is none, or several: choose by the moving image, ``deformation_of``.
        """
        found = [item for item in self.items if item.grid is not None]
        if len(found) != 1:
            message = f"The registration object deforms {len(found)} images; name the one that moves."
            raise Failure(Code.E_AMBIGUOUS if found else Code.E_NO_MATCH, message)
        return found[0]

    def deformation_of(self, moving: Stack) -> Deformation:
        """Find the item that moves an image: the one that names its instances, or else its frame of reference.

        An item that names other images alone is none of them.

        Raises:
            Failure: there is none, or several.
        """
        uids = set(moving.sop_instance_uids)
        found = [item for item in self.items if item.sop_instance_uids & uids]
        if not found:
            frame = moving.frame_of_reference_uid
            found = [item for item in self.items if not item.sop_instance_uids and item.source_uid == frame]
        if len(found) != 1:
            message = f"{len(found)} items of the registration object move this series; one must."
            raise Failure(Code.E_AMBIGUOUS if found else Code.E_NO_MATCH, message)
        if found[0].source_uid != moving.frame_of_reference_uid:
            raise Failure(Code.E_NO_MATCH, "The registration object names the moving series in another space.")
        return found[0]

    def displacement_at(self, points_mm: npt.ArrayLike | torch.Tensor) -> torch.Tensor:
        """Compute the displacement of the one item that has a grid: (…, 3), mm, LPS, float64."""
        return self.deforming.displacement_at(points_mm)


@pydicom_silenced()
def read_deformable_registration(path: Path) -> DeformableRegistration:
    """Read an object.

    Raises:
        Failure: it is no such object (E_NO_INPUT), or breaks the standard (E_DECODE).
    """
    try:
        dataset = dcmread(path, force=True)
        sop_class = dataset.get("SOPClassUID")
    except Exception as error:  # pydicom raises whatever its converters meet in damaged bytes, with their values
        raise Failure(Code.E_NO_INPUT, "The registration object is no readable DICOM file.") from error
    if sop_class != DeformableSpatialRegistrationStorage:
        raise Failure(Code.E_NO_INPUT, "The registration is no Deformable Spatial Registration object.")
    try:
        big = dataset.file_meta.TransferSyntaxUID.is_little_endian is False
        items = tuple(_item(item, big) for item in dataset.DeformableRegistrationSequence)
        uid = str(dataset.FrameOfReferenceUID)
    except Failure:
        raise
    except Exception as error:  # as above; also attributes that are absent
        message = "The registration object lacks an attribute that it must have, or has a damaged one."
        raise Failure(Code.E_DECODE, message) from error
    for item in dataset.DeformableRegistrationSequence:
        item.pop("DeformableRegistrationGridSequence", None)
    return DeformableRegistration(dataset, uid, items)


def _refuse(wrong: bool, what: str) -> None:
    if wrong:
        raise Failure(Code.E_DECODE, f"The registration object {what}: it can't be applied.")


def _item(item: Dataset, big_endian: bool) -> Deformation:
    images = item.get("ReferencedImageSequence") or []
    grids = item.get("DeformableRegistrationGridSequence") or []
    _refuse(len(grids) > 1, "has several grids in one item")
    return Deformation(
        str(item.SourceFrameOfReferenceUID),
        frozenset(str(image.ReferencedSOPInstanceUID) for image in images),
        _matrix(item.get("PreDeformationMatrixRegistrationSequence") or []),
        _matrix(item.get("PostDeformationMatrixRegistrationSequence") or []),
        _grid(grids[0], big_endian) if grids else None,
    )


def _matrix(sequence: "list[Dataset]") -> Matrix:
    """Read a matrix, row by row; the identity where there is none."""
    _refuse(len(sequence) > 1, "has several matrices in one place")
    if not sequence:
        return np.eye(4)
    kind = sequence[0].FrameOfReferenceTransformationMatrixType
    _refuse(kind not in MATRIX_TYPES, "has a matrix of an unknown type")
    values = np.array([float(value) for value in sequence[0].FrameOfReferenceTransformationMatrix])
    _refuse(values.shape != (16,) or not np.isfinite(values).all(), "has a matrix that is not 4 × 4 numbers")
    matrix = values.reshape(4, 4)
    _refuse(not np.allclose(matrix[3], [0, 0, 0, 1], atol=1e-9), "has a matrix that is not affine")
    _refuse(abs(np.linalg.det(matrix[:3, :3])) < 1e-9, "has a matrix that can't be inverted")
    product = matrix[:3, :3].T @ matrix[:3, :3]
    scales = np.ones(3) if kind == "RIGID" else np.diag(product)
    _refuse(
        kind != "AFFINE" and np.abs(product - np.diag(scales)).max() > TOLERANCE, f"has a matrix that is not {kind}"
    )
    _refuse(kind != "AFFINE" and np.linalg.det(matrix[:3, :3]) < 0, f"has a matrix that is not {kind}: it mirrors")
    return matrix


def _grid(item: Dataset, big_endian: bool) -> VectorGrid:
    """Read the grid and its vectors: x, y, z interleaved, column fastest."""
    keywords = ("ImageOrientationPatient", "ImagePositionPatient", "GridResolution")
    cosines, position, resolution = (np.array([float(value) for value in item[key].value]) for key in keywords)
    sizes = [cosines.shape, position.shape, resolution.shape, (len(item.GridDimensions),)]
    _refuse(sizes != [(6,), (3,), (3,), (3,)], "has a grid of another dimension than three")
    _refuse(not np.isfinite([*cosines, *position, *resolution]).all(), "has a grid that lies nowhere")
    _refuse(bool((resolution <= 0).any()), "has a left-handed grid, or one without a size")
    axes = cosines.reshape(2, 3)
    _refuse(np.abs(axes @ axes.T - np.eye(2)).max() > TOLERANCE, "has a grid whose axes are not perpendicular")
    columns, rows, slices = (int(value) for value in item.GridDimensions)
    data = item.VectorGridData
    _refuse(min(columns, rows, slices) < 1, "has an empty grid")
    _refuse(len(data) != columns * rows * slices * BYTES_PER_VECTOR, "has vectors of another length than its grid")
    vectors = np.frombuffer(data, ">f4" if big_endian else "<f4").reshape(slices, rows, columns, 3)
    undefined = np.isnan(vectors)
    _refuse(bool(np.isinf(vectors).any()), "has infinite vectors")
    _refuse(bool((undefined.any(-1) != undefined.all(-1)).any()), "has vectors that are undefined in part")
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([*axes, np.cross(*axes)]) * resolution
    affine[:3, 3] = position
    return VectorGrid(affine, vectors.astype(np.float32, copy=False))
