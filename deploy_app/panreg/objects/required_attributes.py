"""What our objects must have (PS3.3, Types 1 and 2 of their mandatory modules): checked before they are published.

It is a second look by a table that no writer reads. Attributes of Type 1C that our objects always need stand among
those of Type 1.
"""

from collections.abc import Iterator

from pydicom import Dataset

__all__ = ["missing"]

Types = tuple[str, str]
"""Keywords of Type 1 (with a value) and of Type 2 (perhaps without)."""

PATIENT = ("", "PatientName PatientID PatientBirthDate PatientSex")
STUDY = ("StudyInstanceUID", "StudyDate StudyTime AccessionNumber ReferringPhysicianName StudyID")
SERIES = ("Modality SeriesInstanceUID", "SeriesNumber")
FRAME_OF_REFERENCE = ("FrameOfReferenceUID", "PositionReferenceIndicator")
EQUIPMENT = ("Manufacturer ManufacturerModelName DeviceSerialNumber SoftwareVersions", "")
SOP_COMMON = ("SOPClassUID SOPInstanceUID", "")
PIXELS = (
    "SamplesPerPixel PhotometricInterpretation Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation "
    "PixelData",
    "",
)
PLANE = ("ImagePositionPatient ImageOrientationPatient PixelSpacing", "SliceThickness InstanceNumber")
CONTENT = ("ContentDate ContentTime InstanceNumber", "")
EVERY = (PATIENT, STUDY, SERIES, SOP_COMMON)
REGISTERED = (*EVERY, FRAME_OF_REFERENCE, EQUIPMENT, PIXELS, PLANE)

OBJECTS: dict[str, tuple[Types, ...]] = {
    # MR Image
    "1.2.840.10008.5.1.4.1.1.4": (
        *REGISTERED,
        ("ImageType ScanningSequence SequenceVariant", "ScanOptions MRAcquisitionType EchoTime EchoTrainLength"),
    ),
    # CT Image
    "1.2.840.10008.5.1.4.1.1.2": (
        *REGISTERED,
        ("ImageType RescaleIntercept RescaleSlope RescaleType", "KVP AcquisitionNumber"),
    ),
    # Deformable Spatial Registration
    "1.2.840.10008.5.1.4.1.1.66.3": (
        *(*EVERY, FRAME_OF_REFERENCE, EQUIPMENT, CONTENT),
        ("DeformableRegistrationSequence ContentLabel", "ContentDescription ContentCreatorName"),
    ),
    # Comprehensive 3D SR
    "1.2.840.10008.5.1.4.1.1.88.34": (
        *(*EVERY, CONTENT),
        ("SeriesNumber CompletionFlag VerificationFlag ValueType ConceptNameCodeSequence ContinuityOfContent", ""),
        ("ContentSequence", "Manufacturer ReferencedPerformedProcedureStepSequence PerformedProcedureCodeSequence"),
    ),
    # Secondary Capture Image
    "1.2.840.10008.5.1.4.1.1.7": (*EVERY, PIXELS, ("ConversionType", "InstanceNumber")),
    # Segmentation
    "1.2.840.10008.5.1.4.1.1.66.4": (
        *(*EVERY, FRAME_OF_REFERENCE, EQUIPMENT, PIXELS, CONTENT),
        ("SeriesNumber ImageType LossyImageCompression SegmentationType SegmentSequence ContentLabel", ""),
        ("NumberOfFrames SharedFunctionalGroupsSequence DimensionOrganizationSequence", "ContentDescription"),
    ),
}

INSTANCE = ("ReferencedSOPClassUID ReferencedSOPInstanceUID", "")
MATRIX = ("FrameOfReferenceTransformationMatrixType FrameOfReferenceTransformationMatrix", "")
ITEMS: dict[str, Types] = {
    "ReferencedImageSequence": INSTANCE,
    "SourceImageSequence": (INSTANCE[0] + " PurposeOfReferenceCodeSequence", ""),
    "SourceInstanceSequence": (INSTANCE[0] + " PurposeOfReferenceCodeSequence", ""),
    "ReferencedInstanceSequence": INSTANCE,
    "ReferencedSOPSequence": INSTANCE,
    "ReferencedSeriesSequence": ("SeriesInstanceUID", ""),
    "StudiesContainingOtherReferencedInstancesSequence": ("StudyInstanceUID ReferencedSeriesSequence", ""),
    "ContributingEquipmentSequence": ("PurposeOfReferenceCodeSequence Manufacturer", ""),
    "DeformableRegistrationSequence": (
        "SourceFrameOfReferenceUID ReferencedImageSequence",
        "RegistrationTypeCodeSequence",
    ),
    "PreDeformationMatrixRegistrationSequence": MATRIX,
    "PostDeformationMatrixRegistrationSequence": MATRIX,
    "DeformableRegistrationGridSequence": (
        "ImageOrientationPatient ImagePositionPatient GridDimensions GridResolution VectorGridData",
        "",
    ),
    "SegmentSequence": (
        "SegmentNumber SegmentLabel SegmentAlgorithmType SegmentedPropertyCategoryCodeSequence "
        "SegmentedPropertyTypeCodeSequence",
        "",
    ),
    "DimensionOrganizationSequence": ("DimensionOrganizationUID", ""),
    "ContentSequence": ("ValueType RelationshipType", ""),
    "DeidentificationMethodCodeSequence": ("", ""),  # copied as it is
}
"""Of each item of a sequence, wherever it stands."""
CODE = ("CodeValue CodingSchemeDesignator CodeMeaning", "")
"""Of each item of another code sequence."""


def missing(dataset: Dataset) -> list[str]:
    """List the attributes that an object must have and has not, or without a value, as paths of keywords.

    An object of another SOP Class has none that is known here: what is not in the table is not ours to publish.
    """
    modules = OBJECTS.get(str(dataset.get("SOPClassUID")))
    if modules is None:
        return ["SOPClassUID"]
    return [path for types in modules for path in _absent(dataset, types, "")] + list(_absent_in_items(dataset, ""))


def _absent(dataset: Dataset, types: Types, place: str) -> Iterator[str]:
    with_value, perhaps_empty = (keywords.split() for keywords in types)
    for keyword in with_value:
        if keyword not in dataset or dataset[keyword].value in (None, "", b"") or dataset[keyword].value == []:
            yield place + keyword
    for keyword in perhaps_empty:
        if keyword not in dataset:
            yield place + keyword


def _absent_in_items(dataset: Dataset, place: str) -> Iterator[str]:
    for element in dataset:
        if element.VR == "SQ":
            types = ITEMS.get(element.keyword, CODE if element.keyword.endswith("CodeSequence") else ("", ""))
            for number, item in enumerate(element.value, 1):
                inside = f"{place}{element.keyword}[{number}]/"
                yield from _absent(item, types, inside)
                yield from _absent_in_items(item, inside)
