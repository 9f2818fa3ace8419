"""A command that is ended by a signal leaves nothing half written, and one whose reader has gone finishes."""

import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest
from bundle.endings import ended_in_words, printing_on

WRITES = """
import sys, time
from pathlib import Path
from bundle.endings import ended_in_words
from bundle.io.files import beside

with ended_in_words(), beside(Path(sys.argv[1]), ".writing_") as folder:
    (folder / "half").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_ends_a_command_in_a_sentence_and_what_was_half_written_is_gone(tmp_path, name):
    command = [sys.executable, "-c", WRITES, str(tmp_path / "result")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(getattr(signal, name))
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + getattr(signal, name)
    assert said == f"error: ended by {name} before it was done.\n"
    assert list(tmp_path.iterdir()) == []


def test_a_signal_ends_forked_processes_as_usual_and_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with ended_in_words():
        assert signal.getsignal(signal.SIGTERM) != before
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_is_ignored_stays_so():
    """As nohup has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_in_words():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("redirect", [redirect_stdout, redirect_stderr])
def test_a_command_prints_on_where_its_reader_has_gone(redirect):
    reader, writer = os.pipe()
    os.close(reader)
    finished = []
    with open(writer, "w", encoding="utf-8") as stream, redirect(stream), printing_on():
        for text in ("one", "x" * 100_000):
            print(text, file=sys.stdout if redirect is redirect_stdout else sys.stderr, flush=True)
        finished.append(True)
    assert finished


@pytest.mark.parametrize("words", [["root"], ["root", "--json"], ["--help"], ["register", "--help"]])
def test_whatever_reads_the_output_may_stop(words):
    command = [sys.executable, "-m", "bundle", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 0
    assert "roken pipe" not in said
