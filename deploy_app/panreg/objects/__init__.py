"""The DICOM objects that are written."""
