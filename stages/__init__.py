"""One thin script per stage, run as `python -m stages.<name>` from the root of a workspace.

Puts the workspace's own `src` first on the import path: with an installed package, a queued or `--temp`
experiment would import the main workspace's code.

Makes waiting OpenMP threads sleep: by default they spin, and if a different process needs the core, as with
`dvc queue start -j 2`, a training step takes ten times as long (1 s instead of 0.1 s).
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
