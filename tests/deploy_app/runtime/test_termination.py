"""A process that is asked to end, as by a platform or Ctrl+C, clears up and ends with the code of a killed one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEPLOY_APP = Path(__file__).parents[3] / "deploy_app"
ASK = "os.kill(os.getpid(), signal.{signal})"
PROGRAM = """
import os, signal, subprocess, sys, threading, time
signal.signal(signal.{signal}, signal.{start})
from panreg.runtime import termination
os.mkdir(sys.argv[1])

def act(asked):
    assert asked is signal.{signal}
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


def ended(folder, signal="SIGTERM", start="SIG_DFL", **asked):
    """Start a process that asks itself to end at some place; its exit code, and whether its work is left."""
    places = {"before": "pass", "within": "pass", "after": "pass"} | asked
    program = PROGRAM.format(signal=signal, start=start, **places).replace("ASK", ASK.format(signal=signal))
    line = [sys.executable, "-c", program, folder / "work"]
    done = subprocess.run(line, env=os.environ | {"PYTHONPATH": str(DEPLOY_APP)}, timeout=60)
    return done.returncode, (folder / "work").exists()


@pytest.mark.parametrize(("signal", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_a_process_that_is_asked_to_end_clears_up_while_there_is_something_to_clear(tmp_path, signal, code):
    assert ended(tmp_path, signal, before="ASK; time.sleep(30)") == (code, True)
    (tmp_path / "work").rmdir()
    assert ended(tmp_path, signal, within="ASK; time.sleep(30)") == (7, False)


def test_a_process_that_has_done_its_work_or_is_not_asked_ends_by_itself(tmp_path):
    assert ended(tmp_path, after="ASK") == (0, True)
    (tmp_path / "work").rmdir()
    assert ended(tmp_path) == (0, True)


def test_a_process_that_was_started_to_ignore_a_signal_as_by_nohup_goes_on(tmp_path):
    assert ended(tmp_path, "SIGHUP", "SIG_IGN", within="ASK; time.sleep(0.2)") == (0, True)
