"""RT Structure Sets drawn on a stack: contours of masks, as a contouring program would write them."""

import numpy as np
from contourpy import contour_generator
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage
from pydicom.valuerep import format_number_as_ds
from synthetic import uid


def outlines(mask):
    """Contours of a plane's mask half-way between pixels, (n, 2): column and row."""
    padded = np.pad(mask.astype(float), 1)
    return [line[:-1] - 1 for line in contour_generator(z=padded).lines(0.5)]


def contour(points_mm, kind="CLOSED_PLANAR"):
    item = Dataset()
    item.ContourGeometricType, item.NumberOfContourPoints = kind, len(points_mm)
    item.ContourData = [format_number_as_ds(float(value)) for value in np.ravel(points_mm)]
    return item


def placed(points, k, affine):
    """Bring columns and rows (n, 2) of slice k into space."""
    index = np.column_stack([points, np.full(len(points), k)])
    return index @ affine[:3, :3].T + affine[:3, 3]


def contours_of(mask, affine, kind="CLOSED_PLANAR"):
    """Draw all contours of a mask [k, j, i]."""
    return [contour(placed(line, k, affine), kind) for k, plane in enumerate(mask) for line in outlines(plane)]


def write_structure_set(path, stack, rois, names=None, edit=None):
    """Write ROIs, each a list of contours, drawn on a stack."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = RTStructureSetStorage, uid("structures")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds, header = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128), stack.header
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = RTStructureSetStorage, uid("structures"), "RTSTRUCT"
    ds.PatientID, ds.PatientName = header.PatientID, header.PatientName
    ds.StudyInstanceUID, ds.SeriesInstanceUID = header.StudyInstanceUID, uid("structures series")
    ds.StructureSetLabel, ds.SpecificCharacterSet = "Plan", "ISO_IR 100"
    frame, study, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = header.SeriesInstanceUID
    study.RTReferencedSeriesSequence, frame.RTReferencedStudySequence = [series], [study]
    frame.FrameOfReferenceUID = header.FrameOfReferenceUID
    ds.ReferencedFrameOfReferenceSequence = [frame]
    ds.StructureSetROISequence, ds.ROIContourSequence, ds.RTROIObservationsSequence = [], [], []
    for number, contours in enumerate(rois, 11):
        roi, drawn, observation = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ReferencedFrameOfReferenceUID = number, header.FrameOfReferenceUID
        roi.ROIName = (names or {}).get(number, f"Structure {number}")
        drawn.ReferencedROINumber, drawn.ContourSequence = number, contours
        observation.ReferencedROINumber, observation.RTROIInterpretedType = number, "ORGAN"
        ds.StructureSetROISequence.append(roi)
        ds.ROIContourSequence.append(drawn)
        ds.RTROIObservationsSequence.append(observation)
    if edit is not None:
        edit(ds)
    ds.save_as(path, enforce_file_format=True)
    return path
