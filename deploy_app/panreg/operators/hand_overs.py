"""What each operator makes, and the next one takes."""

from dataclasses import dataclass

from panreg.ingest.decode import Volume
from panreg.ingest.scan import Scan
from panreg.ingest.stack import AnyStack
from panreg.objects.provenance import Provenance
from panreg.output.publication import PublishedObject
from panreg.pairing.choice import Pair
from panreg.registration.result import Registration

__all__ = ["Ingested", "Paired", "Published", "Registered", "Written"]


@dataclass(frozen=True, eq=False)
class Ingested:
    """What lies in the input folder.

    Args:
        scan: its files.
        stacks: the images, the refused ones too.
    """

    scan: Scan
    stacks: tuple[AnyStack, ...]


@dataclass(frozen=True, eq=False)
class Paired:
    """The pair, of one patient, with its pixels.

    Args:
        scan: of the input.
        pair: fixed and moving.
        fixed: voxels of the fixed stack.
        moving: voxels of the moving stack.
    """

    scan: Scan
    pair: Pair
    fixed: Volume
    moving: Volume


@dataclass(frozen=True, eq=False)
class Registered:
    """The registration, and by what it was made.

    Args:
        scan: of the input: segmentations of the moving series are still to be read.
        registration: finished.
        provenance: of all objects.
    """

    scan: Scan
    registration: Registration
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class Written:
    """All objects, staged; the quality gate has let them pass.

    Args:
        broken: limits of the gate that the result breaks, for which its objects are flagged; a sentence each.
    """

    broken: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Published:
    """All objects, checked and in the output.

    Args:
        objects: as the manifest lists them.
    """

    objects: tuple[PublishedObject, ...]
