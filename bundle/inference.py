"""Run the inference workflow, ``configs/inference.json``, from Python."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bundle.failures import unwrapped
from bundle.options import as_text
from bundle.root import ROOT, WEIGHTS

if TYPE_CHECKING:
    from monai.bundle import ConfigWorkflow

__all__ = ["infer", "infer_pair"]

LEVELS = {  # of loggers, while the workflow runs
    "ignite": logging.CRITICAL,  # what ends a run is raised, too: once is enough
    "monai.bundle.workflows": logging.ERROR,  # it warns that there is no logging file
}


def infer(**overrides: Any) -> "ConfigWorkflow":
    """Run it with some of its keys replaced; the workflow that ran is returned.

    Weights whose description (``NAME.json``) names a config by ``network``, ``peers/transmorph`` say, run in the
    network of that config. A value that starts with $, @ or % is an expression, a reference or a macro of the config;
    any other text, and all in a list or a dictionary, is taken as it stands: a path with a #, say.

    Raises:
        ValueError: there is no such config, or an input cannot be used.
        OSError: a file cannot be read or written, a FileNotFoundError among them.
    """
    from monai.bundle import ConfigWorkflow  # here, so that --help is quick

    with _quiet(), unwrapped():
        workflow = ConfigWorkflow(
            [str(ROOT / "configs" / f"{name}.json") for name in _configs(str(overrides.get("ckpt", WEIGHTS)))],
            meta_file=str(ROOT / "configs" / "metadata.json"),
            logging_file=False,
            workflow_type="inference",
            bundle_root=as_text(str(ROOT)),
            **{key: _taken(value) for key, value in overrides.items()},
        )
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    return workflow


def infer_pair(pair: Mapping[str, Any], **overrides: Any) -> dict[str, Any]:
    """Run it on one pair, write nothing, and return what it read and found of it.

    Args:
        pair: ``name``, and the paths of ``moving``, ``fixed`` and what else there is.
        overrides: as of ``infer``.
    """
    workflow = infer(save=False, tabulate=False, **{"dataset#data": [dict(pair)]}, **overrides)
    state = workflow.parser.get_parsed_content("evaluator").state
    return dict(state.batch[0]) | dict(state.output[0])


@contextmanager
def _quiet() -> Iterator[None]:
    """Raise the levels of ``LEVELS``, and put them back: they are the whole program's."""
    before = {name: logging.getLogger(name).level for name in LEVELS}
    try:
        for name, level in LEVELS.items():
            logging.getLogger(name).setLevel(level)
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _taken(value: Any, top: bool = True) -> Any:
    """Hand text over as it stands; what is to be evaluated is no part of a list or a dictionary here."""
    if isinstance(value, dict):
        return {key: _taken(one, top=False) for key, one in value.items()}
    if isinstance(value, list):
        return [_taken(one, top=False) for one in value]
    evaluated = not isinstance(value, str) or (top and value.startswith(("$", "@", "%")))
    return value if evaluated else as_text(value)


def _configs(weights: str) -> list[str]:
    """Name the configs that weights run by."""
    from bundle.weights import recommended

    network = recommended(weights, "network")
    if network is None:
        return ["inference"]
    known = sorted(f"peers/{path.stem}" for path in (ROOT / "configs" / "peers").glob("*.json"))
    if network not in known:
        raise ValueError(f"The weights ({weights}) name the network '{network}', which is none of {', '.join(known)}.")
    return ["inference", network]
