"""Models of runs: folders in MLflow's own form, for its registry and its servers."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from callboard.core.errors import UserError
from callboard.results.mlflow.connection import TrackingError, one_writer, our_experiment, tracking_uri
from callboard.results.stored_runs import known_runs


class ModelFiles(NamedTuple):
    """Files and descriptions from which MLflow runs a model."""

    script: Path
    """Python file that passes an `mlflow.pyfunc.PythonModel` to `mlflow.models.set_model`."""
    artifacts: dict[str, Path]
    """Files that the model reads, by the name under which its context has them."""
    code: Path
    """Folder of the package that the script imports, which is copied into the model."""
    requirements: Sequence[str]
    """Requirements of this package, as pip takes them."""
    inputs: dict[str, str]
    """Type in MLflow's words of each column of its input."""
    outputs: dict[str, str]
    """Type of each column of its output."""


def log_model(key: str, name: str, files: ModelFiles) -> str:
    """Add a model to the run of a result, and return its address, `models:/…`.

    Parameters, metrics and times of the run stay as they are.

    Raises:
        UserError: MLflow has no finished run of the result, or cannot be written.
    """
    uri = tracking_uri()
    try:
        run = known_runs(key).get(key)
        if run is None or not run.is_finished:
            raise UserError(f"MLflow has no run of the result {key}; `callboard sync` records it")
        with one_writer(), our_experiment(uri) as (client, experiment_id):
            from mlflow.entities import LoggedModelOutput

            model = client.create_logged_model(experiment_id, name, source_run_id=run.run_id)
            with TemporaryDirectory(prefix="callboard-") as folder:
                path = Path(folder, "model")
                _save(path, files, model.model_id, run.run_id, model.artifact_location)
                client.log_model_artifacts(model.model_id, str(path))
            client.finalize_logged_model(model.model_id, "READY")
            client.log_outputs(run.run_id, [LoggedModelOutput(model.model_id, step=0)])
            return f"models:/{model.model_id}"
    except TrackingError as error:
        raise UserError(f"the model cannot be logged: {error}") from error


def _save(path: Path, files: ModelFiles, model_id: str, run_id: str, place: str) -> None:
    import mlflow.pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema

    inputs, outputs = (
        Schema([ColSpec(kind, name) for name, kind in columns.items()])
        for columns in (files.inputs, files.outputs)
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*An input example was not provided")  # it would be a path here
        mlflow.pyfunc.save_model(
            str(path),
            mlflow_model=Model(artifact_path=place, run_id=run_id, model_uuid=model_id, model_id=model_id),
            python_model=str(files.script),
            artifacts={name: str(file) for name, file in files.artifacts.items()},
            code_paths=[str(files.code)],
            pip_requirements=list(files.requirements),
            signature=ModelSignature(inputs, outputs),
        )
