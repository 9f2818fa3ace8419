"""What a DICOM data set says of an image, and how its elements are copied, checked and written."""
