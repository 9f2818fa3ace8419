"""The container's tests start the application on the synthetic images of its own tests."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "deploy_app"), str(ROOT / "tests" / "deploy_app")]
