"""Processes for tests, without the seconds that a start takes: forked from one that has imported what they need.

Each is a process of its own all the same: with its arguments, streams and exit code, and its end ends no other.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

IMPORTED = ("monai.bundle", "ignite.engine", "bundle.benchmark.worker", "bundle.handlers", "bundle.inferers")
COVERAGE = "Exception ignored in atexit callback: <bound method Coverage"  # said under make coverage, not by a module


def context(packages=IMPORTED):
    """The context of ``multiprocessing`` whose processes find most packages imported."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(list(packages))
    return found


def run_module(module, *arguments, cwd, timeout=400):
    """Run ``python -m MODULE ARGUMENTS`` in a folder; its output and exit code, as ``subprocess.run`` has them."""
    return run_forked([module, *map(str, arguments)], partial(_run_module, cwd=str(cwd)), timeout=timeout)


def _run_module(words, cwd):
    os.chdir(cwd)
    sys.path[:0] = [cwd]
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def run_forked(words, program, packages=IMPORTED, timeout=400):
    """Run a program in a process of its own; its output and exit code, as ``subprocess.run`` has them.

    Args:
        words: its arguments, itself first.
        program: a function of a module that is called with them, there.
        packages: that the process finds imported.
        timeout: seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder) / name for name in ("stdout", "stderr")]
        process = context(packages).Process(target=_become, args=(words, program, [str(path) for path in streams]))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(words, timeout)
        stdout, stderr = (path.read_text() for path in streams)
        return subprocess.CompletedProcess(words, process.exitcode, stdout, stderr.split(COVERAGE)[0])


def _become(words, program, streams):
    """Take the place of a program's process, to its end by an exception that nobody catches."""
    for number, path in enumerate(streams, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = words
    try:
        program(words)
    except Exception:
        sys.excepthook(*sys.exc_info())
        raise SystemExit(1) from None
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves without them
