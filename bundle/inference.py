"""Run the inference workflow, ``configs/inference.json``, from Python."""

import logging
from typing import TYPE_CHECKING, Any

from bundle.root import ROOT, WEIGHTS

if TYPE_CHECKING:
    from monai.bundle import ConfigWorkflow

__all__ = ["infer"]


def infer(**overrides: Any) -> "ConfigWorkflow":
    """Run it with some of its keys replaced; the workflow that ran is returned.

    Weights whose description (``NAME.json``) names a config by ``network``, ``peers/transmorph`` say, run in the
    network of that config.

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
        bundle_root=str(ROOT),
        **overrides,
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return workflow


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
