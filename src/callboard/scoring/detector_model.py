"""Logging of an exported detector as a model of its result's run."""

from importlib import metadata
from pathlib import Path

from callboard.results.mlflow.models import ModelFiles, log_model
from callboard.scoring.onnx_networks import DEFAULT_ENGINE

PACKAGE = Path(__file__).parents[1]

REQUIRED = (
    *("numpy", "pandas", "pyarrow", "scipy", "pydantic", "ruamel.yaml", "soundfile", "threadpoolctl", "tqdm"),
    *("psutil", "filelock", DEFAULT_ENGINE, "mlflow"),
)
"""Packages that a detector needs, and MLflow."""


def log_detector(file: Path, key: str) -> str:
    """Add an exported detector to the run of its result, and return the model's address, `models:/…`.

    The model contains the file and this package, so nothing of callboard has to be installed where it runs.

    Args:
        file: The file of `callboard export`.
        key: Content key of the result.

    Raises:
        UserError: MLflow has no run of the result, or cannot be written.
    """
    return log_model(
        key,
        "detector",
        ModelFiles(
            script=PACKAGE / "scoring/pyfunc_model.py",
            artifacts={"detector": file},
            code=PACKAGE,
            requirements=[f"{name}=={metadata.version(name)}" for name in REQUIRED],
            inputs={"recording": "string"},
            outputs={"recording": "string", "length_s": "double", "species": "string", "score": "double"},
        ),
    )
