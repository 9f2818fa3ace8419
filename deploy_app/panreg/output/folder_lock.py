"""An output folder belongs to one run at a time, which holds a lock on it."""

import errno
import fcntl
import os
from pathlib import Path

from panreg.failures import Code, Failure

__all__ = ["lock"]

NO_LOCKS = {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}  # NFS, and file systems without any


def lock(folder: Path) -> int:
    """Take a folder for this process alone, until the descriptor that is returned is closed or the process ends.

    The lock is on the folder itself: no file of ours is left in it, and none outlives a killed process. On a file
    system that has no such locks there is none.

    Raises:
        Failure: E_OUTPUT: another process has it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        message = "Another run is writing into the output folder: wait for it, or give another folder."
        raise Failure(Code.E_OUTPUT, message) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            os.close(descriptor)
            raise
    return descriptor
