"""Whether two stacks show one patient: by identifiers that identify somebody, and by what a body can't change.

A placeholder that a de-identification left (``***``, ``ANON``, ``0000``, blanks) identifies nobody and counts as
absent. No sentence of this module repeats a value.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from datetime import date, datetime

from panreg.dicom.attributes import numbers, pydicom_silenced, text
from panreg.dicom.times import day
from panreg.failures import Code, Failure
from panreg.ingest.stack import FrameGroup
from pydicom import Dataset

__all__ = ["check_patient", "identifier"]

# what says, anywhere in an identifier, that it was taken out or never known; letters without their accents
TAKEN_OUT = frozenset(
    "anon anoniem deid deidentified deidentifiedpatient identityremoved removed redacted masked blinded confidential "
    "unknown undefined unspecified missing unbekannt entfernt inconnu supprime desconocido desconocida eliminado "
    "desconhecido sconosciuto sconosciuta rimosso onbekend verwijderd okand ukjent ukendt tuntematon nieznany neznamy "
    "匿名 匿名化 匿名患者 不明 未知 익명".split()
)
STEMS = ("anonym", "anonim", "pseudonym", "deidentif")  # whatever the word's ending in whichever language
# what stands in the place of an identifier, without its punctuation and the digits 0 around it
PLACEHOLDERS = TAKEN_OUT | frozenset(
    "anonpatient hidden unk none null nil na nan nn nv noid noname nopatientid nodata empty blank default dummy phi "
    "test testpatient patient patientid patientname id pid mrn name subject notavailable notapplicable notprovided "
    "notset notknown notspecified notgiven tbd todo qa qc phantom johndoe doejohn janedoe doejane".split()
)
REPEATED, COUNTED = 3, 4  # digits from which a number was typed because one was asked for: 111, 1234
COUNT = "12345678901234567890"
EARLIEST_BIRTH = date(1901, 1, 1)  # 19000101 and before are what de-identification writes

WEIGHT_KG, WEIGHT_SHARE, WEIGHT_NOTICE_KG = 10.0, 0.2, 5.0
SIZE_M, ADULT_M = 0.10, 1.4
AGE_YEARS = 2.0
ROUNDING = 1e-6


@pydicom_silenced()
def check_patient(
    fixed: FrameGroup,
    moving: FrameGroup,
    mode: str,
    conflict: str = "refuse",
    names: tuple[str, str] = ("fixed", "moving"),
) -> tuple[str, ...]:
    """Refuse two stacks unless every image says that it is of the same patient.

    Args:
        fixed: one stack.
        moving: the other.
        mode: strict, or allow_unidentified for images without a Patient ID that identifies; those that have one must
            agree even so.
        conflict: of weight, size, age or name where there is no Patient ID to go by, and of the name together with one
            of the others where there is one: refuse, or warn. Alone they are a warning or nothing then: bodies change,
            and names are misspelt, or married.
        names: what the sentences call the two.

    Returns:
        Warnings: what could not be checked, and what differs.

    Raises:
        Failure: E_PATIENT; names the attribute, never its value.
    """
    headers, both = [*fixed.instances(), *moving.instances()], " and ".join(names)
    for keyword in ("PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"):
        if len({_meaning(header, keyword) for header in headers} - {None}) > 1:
            raise Failure(Code.E_PATIENT, f"{both.capitalize()} differ in {keyword}: they may be of two patients.")
    one_study = fixed.study_uid == moving.study_uid
    without = [
        role
        for role, stack in zip(names, (fixed, moving))
        if not all(identifier(text(header, "PatientID"), trivial=one_study) for header in stack.instances())
    ]
    doubts = tuple(f"{both.capitalize()} {doubt}" for doubt in _conflicts(fixed, moving, identified=not without))
    notices = tuple(f"{both.capitalize()} {notice}" for notice in _notices(headers))
    hint = "PANREG_PATIENT_CONFLICT=warn registers them even so"
    if not without:
        if doubts and _names_differ(headers) and conflict == "refuse":
            message = f"{doubts[0][:-1]}, and in PatientName: they may be of two patients in spite of their PatientID"
            raise Failure(Code.E_PATIENT, f"{message}; {hint}.")
        return (*doubts, *notices)
    message = f"No PatientID that identifies somebody ({' and '.join(without)}): absent, or a placeholder"
    if mode != "allow_unidentified":
        admitted = "PANREG_PATIENT_CHECK=allow_unidentified admits de-identified images"
        raise Failure(Code.E_PATIENT, f"{message}; {admitted}.")
    if doubts and conflict == "refuse":
        raise Failure(Code.E_PATIENT, f"{message}; and {doubts[0][0].lower()}{doubts[0][1:-1]}: {hint}.")
    return (f"{message}: whether {both} are of one patient can't be checked.", *doubts, *notices)


def identifier(value: str | None, trivial: bool = False) -> str | None:
    """Take an identifier for what it says: None where it is a placeholder that any patient may have.

    Args:
        value: an attribute's text, or None.
        trivial: let digits that repeat or count (``999``, ``12345``) pass, and a number beside a word that says that
            something was taken out (``ANON-17``). They may be somebody's, and tell two patients apart, but don't prove
            that two studies are of one.

    Returns:
        The text without the blanks around it; None if it is absent, of punctuation or one repeated character alone
        (``***``, ``0000``, ``XXXX``), holds a word that says that something was taken out (``ANON``, ``unknown``),
        is of other words that stand for none (``Patient ID``), or trivial.
    """
    stripped = (value or "").strip(" \0")
    decomposed = unicodedata.normalize("NFKD", stripped.casefold())
    plain = unicodedata.normalize("NFKC", "".join(c for c in decomposed if not unicodedata.combining(c)))
    letters = re.sub(r"[\W_]+", "", plain)
    if letters.isdecimal():
        digits = letters.lstrip("0")
        return stripped if digits and (trivial or not _is_typed_at_random(digits)) else None
    if len(set(letters)) <= 1:
        return None
    if any(_is_taken_out(word.strip("x")) for word in re.split(r"[\W\d_]+", plain)):
        return stripped if trivial and re.search("[1-9]", letters) else None
    words = [word.strip("0x") for word in re.split(r"[\W_]+", plain)]
    if letters.strip("0") in PLACEHOLDERS or all(not word or word in PLACEHOLDERS for word in words):
        return None
    return stripped


def _is_typed_at_random(digits: str) -> bool:
    """Tell 111, 999 and 12345, leading zeros left out: what is typed where a number must stand."""
    repeats = len(digits) >= REPEATED and len(set(digits)) == 1
    return repeats or (len(digits) >= COUNTED and COUNT.startswith(digits))


def _is_taken_out(word: str) -> bool:
    return word in TAKEN_OUT or word.startswith(STEMS)


def _meaning(header: Dataset, keyword: str) -> str | None:
    """Read an attribute as far as it tells one patient from another."""
    value = text(header, keyword)
    if keyword == "PatientBirthDate":
        born = _born(value)
        return None if born is None or born < EARLIEST_BIRTH else born.isoformat()
    if keyword == "PatientSex":
        return value.upper() if value and value.upper() in ("M", "F", "O") else None
    return identifier(value, trivial=True)


def _conflicts(fixed: FrameGroup, moving: FrameGroup, identified: bool) -> Iterator[str]:
    """Yield what differs more than one body does, as the end of a sentence."""
    pair = (fixed, moving)
    headers = [header for stack in pair for header in stack.instances()]
    low, high = _range(headers, "PatientWeight")
    apart, share = high - low, (high - low) / high if high else 0.0
    if identified:
        if apart > WEIGHT_KG and share > WEIGHT_SHARE:
            yield f"differ in PatientWeight by over {WEIGHT_KG:g} kg and {WEIGHT_SHARE:.0%}."
    elif apart >= WEIGHT_KG - ROUNDING or share >= WEIGHT_SHARE - ROUNDING:
        yield f"differ in PatientWeight by {WEIGHT_KG:g} kg, or {WEIGHT_SHARE:.0%}, or more."
    low, high = _range(headers, "PatientSize")
    if low >= ADULT_M and high - low > SIZE_M + ROUNDING:
        yield f"differ in PatientSize by over {SIZE_M * 100:g} cm, and both are of an adult's."
    if not _ages_agree(fixed, moving):
        yield "differ in PatientAge by over 2 years more or less than their dates do."
    if not identified and _names_differ(headers):
        yield "differ in PatientName."


def _names_differ(headers: Sequence[Dataset]) -> bool:
    names = {identifier(text(header, "PatientName")) for header in headers} - {None}
    return len({re.sub(r"[\W_]+", "", str(name)).casefold() for name in names}) > 1


def _notices(headers: Sequence[Dataset]) -> Iterator[str]:
    """Yield what a person should look at, and refuses nothing, likewise."""
    low, high = _range(headers, "PatientWeight")
    if WEIGHT_NOTICE_KG - ROUNDING <= high - low < WEIGHT_KG:
        yield f"differ in PatientWeight by {WEIGHT_NOTICE_KG:g} kg or more."


def _range(headers: Sequence[Dataset], keyword: str) -> tuple[float, float]:
    """Least and greatest value of an attribute that is above 0; zeros where no image has it."""
    values = [value[0] for value in (numbers(header, keyword, 1) for header in headers) if value and value[0] > 0]
    return (min(values), max(values)) if values else (0.0, 0.0)


def _ages_agree(fixed: FrameGroup, moving: FrameGroup) -> bool:
    ages = [_years(text(stack.header, "PatientAge")) for stack in (fixed, moving)]
    days = [day(text(stack.header, "StudyDate")) for stack in (fixed, moving)]
    if ages[0] is None or ages[1] is None or days[0] is None or days[1] is None:
        return True
    passed = (days[0] - days[1]).days / 365.25
    return abs(ages[0] - ages[1] - passed) <= AGE_YEARS


def _years(age: str | None) -> float | None:
    """Read an Age String (nnnD, nnnW, nnnM, nnnY); none, or 000, says nothing."""
    match = re.fullmatch(r"(\d{3})([DWMY])", age or "")
    if not match or not int(match[1]):
        return None
    return int(match[1]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[match[2]]


def _born(value: str | None) -> date | None:
    try:
        return datetime.strptime(value or "", "%Y%m%d").date()
    except ValueError:
        return None
