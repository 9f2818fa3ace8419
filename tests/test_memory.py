import platform
import subprocess
import sys

import pytest

HOLES = """
import sys, torch
from pathlib import Path
from bundle.memory import return_freed_memory

def resident_mb():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1e3

if sys.argv[1] == "returned":
    return_freed_memory()
else:
    del_me = torch.ones(7 << 20)  # once it is freed, the C library keeps blocks of its size
    del del_me
tensors = [torch.ones(1 << 20) for _ in range(60)]  # 4 MB each
full = resident_mb()
del tensors[::2]
print(full - resident_mb())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_tensors_leave_no_holes():
    freed = {}
    for how in ("returned", "as it is"):
        done = subprocess.run([sys.executable, "-c", HOLES, how], capture_output=True, text=True, check=True)
        freed[how] = float(done.stdout)
    assert freed["as it is"] < 20
    assert freed["returned"] > 110  # of 126
