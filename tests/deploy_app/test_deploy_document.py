"""What docs/deploy.md promises, against the code."""

import json
import re
from pathlib import Path

from panreg.failures import Code

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "deploy.md").read_text()


def test_table_of_exit_codes_is_that_of_the_application():
    rows = re.findall(r"^\| (\d+) \| (E_[A-Z_, ]+) \|", DOCUMENT, re.MULTILINE)
    documented = {name: int(exit_code) for exit_code, names in rows for name in names.split(", ")}
    assert documented == {code.name: code.exit_code for code in Code}


def test_workflow_definition_runs_this_version_of_the_image():
    workflow = json.loads((ROOT / "docs" / "workflow.json").read_text())
    version = json.loads((ROOT / "configs" / "metadata.json").read_text())["version"]
    (task,) = [task for task in workflow["tasks"] if task["type"] == "docker"]
    assert task["args"]["container_image"] == f"localhost/pan_registration:{version}"
    assert f"localhost/pan_registration:{version}" in DOCUMENT
    named = {destination["name"] for task in workflow["tasks"] for destination in task.get("task_destinations", [])}
    assert named == {task["id"] for task in workflow["tasks"]} - {"router"}
