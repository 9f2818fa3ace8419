"""The validators of dicom3tools, run on files."""

import re
import subprocess

# They hold the accession number for an attribute of the series in images, of the study in documents.
KNOWN_OF_STUDY = re.compile("Different information entities for attribute - Element=<AccessionNumber>")


def messages(*command):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if re.match("Error|Warning|Abort", line)]
