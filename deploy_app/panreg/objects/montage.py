"""The montage: the bundle's picture of the registration as a Secondary Capture image."""

from pathlib import Path

import numpy as np
from highdicom.sc import SCImage
from panreg.objects.highdicom_objects import finish, identification, source_images
from panreg.objects.modules import burned_in_annotation, save
from panreg.objects.provenance import Provenance
from panreg.registration.result import Registration
from panreg.settings import Settings
from pydicom.uid import ExplicitVRLittleEndian

__all__ = ["write_montage"]


def write_montage(registration: Registration, provenance: Provenance, settings: Settings, path: Path) -> Path:
    """Write the bundle's overview as it is: 8-bit RGB, no text about the patient in it but what the images show.

    Args:
        registration: with the overview, (height, width, 3), bytes.
        provenance: of the run.
        settings: with the label.
        path: file to write.

    Returns:
        The file.
    """
    fixed = registration.fixed
    image = SCImage(
        pixel_array=np.ascontiguousarray(registration.overview),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # required by highdicom, taken out below: the montage has many views
        study_instance_uid=fixed.study_uid,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **identification("montage", settings, provenance),
    )
    image.PatientOrientation, image.Laterality = None, None
    image.BurnedInAnnotation, image.ConversionType = burned_in_annotation(fixed, registration.moving), "WSD"
    image.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    image.DerivationDescription = f"Pictures of a registration. {settings.label}"
    image.SourceImageSequence = source_images((*fixed.instances(), *registration.moving.instances()))
    finish(image, "Registration overview", fixed, provenance, "Pictures of a registration")
    if "StudyDescription" not in image:
        image.StudyDescription = ""
    save(image, path)
    return path
