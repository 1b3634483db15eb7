"""Tags of a run in MLflow, and what stands in them."""

KEY = "callboard.key"
"""Content key of the result."""

KIND = "callboard.kind"
"""One of the three below."""

RESULT = "cv"
FOLD_OF_RESULT = "fold"
AUTHOR = "author"

FOLD = "callboard.fold"
SUBMISSION_MD5 = "callboard.submission_md5"
OOF_MD5 = "callboard.oof_md5"
CLIPS_MD5 = "callboard.clips_md5"
DATA_MD5 = "callboard.data_md5"
COMMIT = "git.commit"

NAMES = "dvc.exp_name"
"""Every DVC experiment that reached the result, with commas between them."""

NOTE = "mlflow.note.content"
PARENT = "mlflow.parentRunId"
"""Makes MLflow show a run below another."""

NAMELESS = "workspace-"


def joined_names(names: tuple[str, ...]) -> str:
    """Names of experiments as the tag has them."""
    return ",".join(names)


def split_names(text: str) -> tuple[str, ...]:
    """The names in a tag."""
    return tuple(name for name in text.split(",") if name)


def nameless(key: str) -> str:
    """What a result is called that no experiment has reached."""
    return NAMELESS + key[:6]
