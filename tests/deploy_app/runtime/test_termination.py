"""SIGTERM, as a platform sends it: a process ends with the code of one that it killed, and clears up before."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEPLOY_APP = Path(__file__).parents[3] / "deploy_app"
ASK = "os.kill(os.getpid(), signal.SIGTERM)"
PROGRAM = """
import os, signal, subprocess, sys, threading, time
from panreg.runtime import termination
os.mkdir(sys.argv[1])

def act():
    os.rmdir(sys.argv[1])
    os._exit(7)

{before}
with termination.listening(act):
    thread = threading.Thread(target=time.sleep, args=(0.1,))
    thread.start()
    {within}
{after}
time.sleep(0.2)
"""


@pytest.mark.parametrize(
    ("place", "code", "is_left"), [("before", 143, True), ("within", 7, False), ("after", 0, True), (None, 0, True)]
)
def test_a_process_that_is_asked_to_end_clears_up_while_there_is_something_to_clear(tmp_path, place, code, is_left):
    asked = {name: f"{ASK}; time.sleep(30)" if name == place else "pass" for name in ("before", "within", "after")}
    asked["after"] = ASK if place == "after" else "pass"
    line = [sys.executable, "-c", PROGRAM.format(**asked), tmp_path / "work"]
    done = subprocess.run(line, env=os.environ | {"PYTHONPATH": str(DEPLOY_APP)}, timeout=60)
    assert done.returncode == code
    assert (tmp_path / "work").exists() == is_left
