"""Run the inference workflow, ``configs/inference.json``, from Python."""

import logging
from typing import TYPE_CHECKING, Any

from bundle.options import as_text
from bundle.root import ROOT, WEIGHTS

if TYPE_CHECKING:
    from monai.bundle import ConfigWorkflow

__all__ = ["infer"]


def infer(**overrides: Any) -> "ConfigWorkflow":
    """Run it with some of its keys replaced; the workflow that ran is returned.

    Weights whose description (``NAME.json``) names a config by ``network``, ``peers/transmorph`` say, run in the
    network of that config. A value that starts with $, @ or % is an expression, a reference or a macro of the config;
    any other text, and all in a list or a dictionary, is taken as it stands: a path with a #, say.

    Raises:
        ValueError: there is no such config.
    """
    from monai.bundle import ConfigWorkflow  # here, so that --help is quick

    logging.getLogger("ignite").setLevel(logging.CRITICAL)  # what ends a run is raised, too: once is enough
    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)  # it warns that there is no logging file
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
