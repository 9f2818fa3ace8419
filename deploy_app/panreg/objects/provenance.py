"""Who made an object, from what and when: deterministic UIDs, the equipment, the clock."""

import hashlib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

__all__ = ["IMPLEMENTATION_CLASS_UID", "MANUFACTURER", "MODEL_NAME", "VERSION", "Provenance"]

NAMESPACE = uuid.UUID("6f0a5f0e-7c1f-4c53-9a0e-2f5d1c8b7a31")
MANUFACTURER = "PAN registration project"
MODEL_NAME = "pan_registration"
VERSION = "0.1.0"  # the bundle's, which a test compares: the image holds both


def _uid(name: str) -> str:
    return f"2.25.{uuid.uuid5(NAMESPACE, name).int}"


IMPLEMENTATION_CLASS_UID = _uid("implementation class")


@dataclass(frozen=True)
class Provenance:
    """What the UIDs of a run are made of, and what its objects say about their maker.

    The same inputs, weights (or applied object), configuration and version give the same UIDs; a change of any gives
    others for all.

    Args:
        fixed_sop_uids: SOP Instance UIDs of the fixed stack.
        moving_sop_uids: SOP Instance UIDs of the moving stack.
        weights_sha256: of the weights file; None where no network took part.
        config_sha256: of the effective configuration: file, environment, overrides, kind of device.
        version: of the application.
        clock: when the run began; injected, so that tests can stop it.
        applied_sha256: of the registration object that was applied, where there was one.
    """

    fixed_sop_uids: tuple[str, ...]
    moving_sop_uids: tuple[str, ...]
    weights_sha256: str | None
    config_sha256: str
    version: str
    clock: datetime
    applied_sha256: str | None = None

    def uid(self, role: str) -> str:
        """Make the UID of one role ("registered:series", "registered:0001", "dsro", "report" …), below 2^128."""
        parts = [_digest(self.fixed_sop_uids), _digest(self.moving_sop_uids), self._field]
        parts += [self.config_sha256, self.version, role]
        return _uid("|".join(parts))

    @property
    def device_uid(self) -> str:
        """Device UID (0018,1002): one per version of the application and its weights (IHE AIR)."""
        return _uid("|".join(["device", *self.software_versions]))

    @property
    def software_versions(self) -> list[str]:
        """Software Versions (0018,1020): the application's and, if there are any, the weights'."""
        return [self.version] if self.weights_sha256 is None else [self.version, self.weights_sha256]

    @property
    def _field(self) -> str:
        """What the field comes from: weights, or a registration object."""
        return self.weights_sha256 or f"applied {self.applied_sha256}"


def _digest(uids: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(uids)).encode()).hexdigest()
