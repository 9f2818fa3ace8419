import math
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from bundle.memory import peak_memory_mb

HOLES = """
import sys, torch
from pathlib import Path
from bundle.memory import prepare_allocator

def resident_mb():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1e3

if sys.argv[1] == "returned":
    prepare_allocator()
else:
    del_me = torch.ones(7 << 20)  # once it is freed, the C library keeps blocks of its size
    del del_me
tensors = [torch.ones(2 << 20) for _ in range(60)]  # 8 MB each
full = resident_mb()
del tensors[::2]
print(full - resident_mb())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_tensors_leave_no_holes():
    freed = {}
    for how in ("returned", "as it is"):
        done = subprocess.run([sys.executable, "-c", HOLES, how], capture_output=True, text=True, check=True)
        freed[how] = float(done.stdout)
    assert freed["as it is"] < 20
    assert freed["returned"] > 220  # of 252


KEPT = """
import sys, torch
from bundle.memory import prepare_allocator, return_memory

exec(sys.argv[1])
prepare_allocator()
tensors = [torch.ones(1 << 20) for _ in range(60)]  # 4 MB each
last = torch.ones(1 << 20)
del tensors
before = resident_mb()
return_memory()
print(before - resident_mb())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_was_freed_and_kept_is_returned():
    resident = HOLES[HOLES.index("def resident_mb") : HOLES.index("if sys.argv")]
    done = subprocess.run(
        [sys.executable, "-c", KEPT, "from pathlib import Path\n" + resident],
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) > 150  # of 252, below what is still there


LARGE = """
import torch
from pathlib import Path
from bundle.memory import prepare_allocator

prepare_allocator()
tensor = torch.ones(16 << 20)  # 64 MB
lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
print(next(line for line in lines if line.startswith("AnonHugePages")).split()[1])
"""
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(
    not SETTING.is_file() or "[madvise]" not in SETTING.read_text(), reason="pages are large for all or for none"
)
@pytest.mark.parametrize(("own", "large"), [(None, True), ("0", False)])
def test_large_tensors_lie_in_large_pages(own, large, monkeypatch):
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    if own:
        monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", own)
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    assert (int(done.stdout) > 32 << 10) is large


WITHOUT = """
import sys
for name in ("fcntl", "grp", "pwd", "resource", "termios"):  # as on Windows
    sys.modules[name] = None
import importlib, math, pathlib, pkgutil
import bundle
from bundle import memory

for package in ("commands", "benchmark"):
    for module in pkgutil.iter_modules([f"{bundle.__path__[0]}/{package}"], f"bundle.{package}."):
        importlib.import_module(module.name)
import bundle.__main__, bundle.batch, bundle.handlers
pathlib.Path.is_file = lambda self: False  # no /proc
assert math.isnan(memory.peak_memory_mb())
"""


def test_where_the_kernel_does_not_tell_the_peak_of_memory_the_c_library_does(monkeypatch):
    """As under gVisor: there is a /proc/self/status, without the line."""
    monkeypatch.setattr(Path, "read_text", lambda self: "Name:\tpython\nVmRSS:\t 1000 kB\n")
    monkeypatch.setattr(Path, "is_file", lambda self: True)
    resource = pytest.importorskip("resource")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert peak_memory_mb() == pytest.approx(peak / (1e6 if sys.platform == "darwin" else 1e3), rel=0.1)
    monkeypatch.setitem(sys.modules, "resource", None)
    assert math.isnan(peak_memory_mb())


def test_everything_starts_on_a_system_without_the_modules_of_posix():
    environment = os.environ | {"USERNAME": "somebody"}  # which Windows has
    line = [sys.executable, "-W", "ignore", "-c", WITHOUT]
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
