"""One thin script per stage, run as `python -m stages.<name>` from the root of a workspace.

An installed package would make a queued or `--temp` experiment import the main workspace's code, so the
workspace that holds this file puts its own `src` first.

Waiting OpenMP threads sleep: by default they spin, and where another process wants a core, as under
`dvc queue start -j 2`, a training step then takes ten times as long (1 s instead of 0.1 s).
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
