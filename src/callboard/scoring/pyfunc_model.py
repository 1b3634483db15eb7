"""A detector as a model of MLflow, which runs this file; see `log_detector`."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from callboard.scoring.detector import Detector
from callboard.scoring.set_scores import RECORDING_TABLE, SKIPPED_TABLE


class DetectorModel(PythonModel):
    """Scores of recordings, which the machine that runs the model must have as files."""

    def load_context(self, context: Any) -> None:
        """Load the detector."""
        self.detector = Detector.load(context.artifacts["detector"])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return recording, length_s, species, score for the files in the column `recording`.

        Raises:
            ValueError: A recording cannot be used.
        """
        paths = list(dict.fromkeys(model_input["recording"]))
        with TemporaryDirectory(prefix="callboard-") as scratch:
            tables, _ = self.detector.tables([(path, Path(path)) for path in paths], 0.0, Path(scratch))
        if reasons := [f"{row.recording}: {row.reason}" for row in tables[SKIPPED_TABLE].itertuples()]:
            raise ValueError("; ".join(reasons))
        return tables[RECORDING_TABLE]


set_model(DetectorModel())
