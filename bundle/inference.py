"""Run the inference workflow, ``configs/inference.json``, from Python."""

import logging
from typing import TYPE_CHECKING, Any

from bundle.root import ROOT

if TYPE_CHECKING:
    from monai.bundle import ConfigWorkflow

__all__ = ["infer"]


def infer(**overrides: Any) -> "ConfigWorkflow":
    """Run it with some of its keys replaced; the workflow that ran is returned."""
    from monai.bundle import ConfigWorkflow  # here, so that --help is quick

    logging.getLogger("ignite").setLevel(logging.CRITICAL)  # what ends a run is raised, too: once is enough
    workflow = ConfigWorkflow(
        str(ROOT / "configs" / "inference.json"),
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
