"""Parts of predict's output in files, each kept until all are there."""

import hashlib
import secrets
from collections.abc import Sequence
from pathlib import Path

import torch

from callboard.core.errors import UserError
from callboard.core.parts import part_key
from callboard.model.weights import LoadedModel
from callboard.scoring.parts import ScoreParams, ScorePart, score_parts
from callboard.scoring.predict import TorchRunner
from callboard.scoring.window_scores import WindowScores, load_scores


class ScoreFiles:
    """Window scores in a folder of parts: `<key>.npz`."""

    def __init__(self, folder: Path, models: Path, code: str) -> None:
        """Keep what keys depend on.

        Args:
            folder: Folder of the parts.
            models: Folder with the files `fold<k>.pt` of the models.
            code: Fingerprint of the code that scores.
        """
        self._folder, self._models, self._code = folder, models, code
        self._digests: dict[Path, str] = {}
        self.used: list[Path] = []
        """Files of all parts so far."""
        self.n_made = 0
        """Number of these that had to be made."""

    def complete(
        self, parts: Sequence[ScorePart[LoadedModel]], params: ScoreParams, device: torch.device
    ) -> list[WindowScores]:
        """Return the scores of parts, after making those whose file is absent or damaged."""
        files = [self._file(part, params) for part in parts]
        found = {file: scores for file in files if (scores := _read_if_whole(file))}
        missing = {file: part for file, part in zip(files, parts, strict=True) if file not in found}
        made = score_parts(list(missing.values()), TorchRunner(params, device))
        for file, scores in zip(missing, made, strict=True):
            scores.save(file, writer=secrets.token_hex(4))
            found[file] = scores
        self.used += files
        self.n_made += len(missing)
        return [found[file] for file in files]

    def remove(self) -> None:
        """Remove the files of all parts so far."""
        for file in self.used:
            file.unlink(missing_ok=True)

    def _file(self, part: ScorePart[LoadedModel], params: ScoreParams) -> Path:
        """Return the file of a part, named after a digest of everything that its scores depend on."""
        batches = part.batches
        models = [self._models / f"fold{loaded.fold}.pt" for loaded in part.models]
        key = part_key(
            params.model_dump_json(include=set(ScoreParams.model_fields)),
            *map(self._digest, [batches.cache.folder / "index.csv", *models]),
            "\n".join(batches.recording_ids),
            f"first window {part.first_window}, fold {part.fold}",
            self._code,
        )
        return self._folder / f"{key}.npz"

    def _digest(self, file: Path) -> str:
        if file not in self._digests:
            self._digests[file] = hashlib.sha256(file.read_bytes()).hexdigest()
        return self._digests[file]


def _read_if_whole(file: Path) -> WindowScores | None:
    try:
        return load_scores(file)
    except UserError:
        return None
