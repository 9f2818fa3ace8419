"""Canaries: marked values in every attribute that may identify a patient, to be looked for where none belongs."""

import base64
import gzip
import re

from pydicom import Dataset
from pydicom.sequence import Sequence

MARK = "KNRY"
HEADER = 352  # bytes of a NIfTI header, with the four that say whether more follows
BIRTH_DATE = "19231117"  # a date can't carry the mark: one that nothing else has
NAMES = (
    *("PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName", "ReferringPhysicianName"),
    *("PerformingPhysicianName", "OperatorsName", "NameOfPhysiciansReadingStudy", "PhysiciansOfRecord"),
    *("RequestingPhysician", "ResponsiblePerson", "ConsultingPhysicianName"),
)
TEXTS = (
    *("PatientID", "IssuerOfPatientID", "OtherPatientIDs", "PatientAddress", "PatientTelephoneNumbers"),
    *("PatientComments", "AdditionalPatientHistory", "MedicalRecordLocator", "MilitaryRank", "BranchOfService"),
    *("Occupation", "EthnicGroup", "CountryOfResidence", "RegionOfResidence", "PatientReligiousPreference"),
    *("Allergies", "MedicalAlerts", "CurrentPatientLocation"),
    *("AccessionNumber", "StudyID", "StudyDescription", "SeriesDescription", "ProtocolName", "ImageComments"),
    *("InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName", "DeviceSerialNumber"),
    *("RequestedProcedureID", "RequestedProcedureDescription", "PerformedProcedureStepID"),
    *("PerformedProcedureStepDescription", "AdmissionID", "StudyComments", "DeidentificationMethod"),
)


def plant(dataset):
    """Put a canary into each identifying attribute of a data set, nested and private ones too; how many.

    The same ones each time: two series stay one patient's.
    """
    for number, keyword in enumerate([*NAMES, *TEXTS]):
        setattr(dataset, keyword, f"{MARK}{number:02d}" + (f"^{MARK}first" if keyword in NAMES else ""))
    dataset.PatientBirthDate = BIRTH_DATE
    other = Dataset()
    other.PatientID, other.TypeOfPatientID = f"{MARK}nested", "TEXT"
    dataset.OtherPatientIDsSequence = Sequence([other])
    block = dataset.private_block(0x0009, f"{MARK}creator", create=True)
    block.add_new(0x01, "LO", f"{MARK}private")
    block.add_new(0x02, "OB", f"{MARK}bytes ".encode())
    return len(NAMES) + len(TEXTS) + 5


def found(content):
    """List the canaries in text or bytes, whatever their case or the coding of the text."""
    text = content.decode("latin-1") if isinstance(content, bytes) else content
    text = text.replace("\0", "")  # UTF-16 and padding
    birth_date = f"{BIRTH_DATE[:4]}\\D{{0,2}}{BIRTH_DATE[4:6]}\\D{{0,2}}{BIRTH_DATE[6:]}"
    return re.findall(f"{MARK}\\w*|{birth_date}", text, re.IGNORECASE)


def found_below(folder):
    """List the canaries in the names of all files and folders below a folder, and in the content of those not DICOM."""
    hits = []
    for path in sorted(folder.rglob("*")):
        hits += found(path.name)
        if path.is_file():
            content = path.read_bytes()
            if path.name == "report.html":
                text, volumes = parts_of_page(content.decode())
                hits += [hit for part in (text, *(volume[:HEADER] for volume in volumes)) for hit in found(part)]
            elif content[128:132] != b"DICM":
                hits += found(content)
    return hits


def parts_of_page(page):
    """Take a page of a registration apart: its text, and what it has packed, unpacked: volumes, and the field.

    Packed, four letters turn up by chance.
    """
    packed = re.findall(r'"(H4sI[A-Za-z0-9+/]{100,}=*)"', page)
    for one in packed:
        page = page.replace(one, "")
    return page, [gzip.decompress(base64.b64decode(one)) for one in packed]
