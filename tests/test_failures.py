"""The sentence about a bad input, found wherever it is wrapped."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from bundle.benchmark.worker import sentence
from bundle.failures import OutcomeError, bad_input, causes, end_with_sentence
from bundle.listing import open_dataset, read_listing


def circle(*errors):
    """Exceptions of which each is the cause of the one before, and the first that of the last."""
    for error, cause in zip(errors, (*errors[1:], errors[0])):
        error.__cause__ = cause
    return errors[0]


def test_the_sentence_is_found_below_what_wraps_it():
    wrapped = RuntimeError("applying transform")
    wrapped.__cause__ = ValueError("The image is flat.")
    assert bad_input(wrapped) == "The image is flat."
    assert bad_input(RuntimeError("a bug")) is None


def test_a_chain_that_closes_upon_itself_comes_to_an_end():
    error = circle(RuntimeError("one"), KeyError("two"))
    assert [type(cause) for cause in causes(error)] == [RuntimeError, KeyError]
    assert bad_input(error) is None
    assert bad_input(circle(RuntimeError("one"), ValueError("two"))) == "two"
    assert sentence(error) == "KeyError: 'two'"


def test_a_benchmark_s_sentence_passes_over_what_was_being_handled():
    error = ValueError("meant")
    error.__context__ = KeyError("handled")
    assert sentence(error) == "ValueError: meant"


def test_another_program_s_hook_is_left_alone():
    before = sys.excepthook
    end_with_sentence()
    assert sys.excepthook is before


def test_the_sentence_comes_last_whoever_shows_the_traceback(monkeypatch, capsys):
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", SimpleNamespace(name="monai.bundle.__main__"))
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, traceback: sys.stderr.write("a traceback\n"))
    end_with_sentence()
    end_with_sentence()  # the configs merged may both ask for it
    for error, shown in ((ValueError("no"), "a traceback\nerror: no\n"), (OutcomeError("no"), "error: no\n")):
        sys.excepthook(type(error), error, None)
        assert capsys.readouterr().err == shown


def raised(program, *arguments):
    """What a function raises, as a component of a config that MONAI wraps."""
    try:
        program(*arguments)
    except Exception as error:
        wrapped = RuntimeError("Failed to instantiate component")
        wrapped.__cause__ = error
        return wrapped
    raise AssertionError


def test_what_the_bundle_or_the_system_says_in_so_many_words_goes_without_a_traceback(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", SimpleNamespace(name="monai.bundle.__main__"))
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, traceback: sys.stderr.write("a traceback\n"))
    end_with_sentence()
    sentences = [
        raised(read_listing, tmp_path / "nowhere"),
        raised(open_dataset, tmp_path, "weekend"),
        raised(open, tmp_path / "none.pt"),
    ]
    mistakes = [raised(int, "three"), raised(Path.open, tmp_path, "nonsense"), raised(torch.zeros(2).reshape, 3)]
    for errors, first in ((sentences, "error: "), (mistakes, "a traceback\n")):
        for error in errors:
            sys.excepthook(type(error), error, None)
            assert capsys.readouterr().err.startswith(first), error.__cause__


class Unreadable(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        try:
            raise ValueError("The image (a.nii) holds NaN values.")
        except ValueError as error:
            raise RuntimeError("applying transform") from error


def test_the_sentence_is_found_in_what_a_worker_process_hands_over():
    with pytest.raises(RuntimeError) as caught:
        next(iter(torch.utils.data.DataLoader(Unreadable(), num_workers=1)))
    assert bad_input(caught.value) == "The image (a.nii) holds NaN values."
