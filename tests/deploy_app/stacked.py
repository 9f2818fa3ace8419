"""The stacks that a folder of DICOM files holds, as tests ask for them."""

from panreg.ingest.scan import scan
from panreg.ingest.stacks import find_stacks
from panreg.limits import Limits


def stacks_in(folder, **limits):
    return find_stacks(scan(folder, Limits(**limits)))


def only_stack_in(folder):
    (stack,) = stacks_in(folder)
    return stack


def refusal_of(folder):
    return only_stack_in(folder).refusal.code
