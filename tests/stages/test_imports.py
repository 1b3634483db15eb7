import subprocess
import sys

import pytest


@pytest.mark.parametrize("stage", ["split", "evaluate", "infer", "score"])
def test_a_stage_without_networks_does_not_import_torch(stage):
    code = f"import sys, stages.{stage}; sys.exit('torch' in sys.modules or 'mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
