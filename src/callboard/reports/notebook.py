"""Results as pandas objects, for notebooks in a workspace; `import callboard` offers these functions.

A name is that of an experiment, branch, tag or run. `name@key` or a content key means one result among
several of a name, and "HEAD" the one of the last commit.
"""

from typing import Any

import pandas as pd

from callboard.analysis.bootstrap import confirmed_in
from callboard.data.presence import species_presence
from callboard.data.score_tables import read_score_table, score_columns_in
from callboard.params.defaults import text_value
from callboard.results.result import CLIPS, OUT_OF_FOLD, Result
from callboard.results.rows import read_rows, result_named


def board() -> pd.DataFrame:
    """Return every finished result that MLflow holds, one row each, oldest first.

    Returns:
        Indexed by name, which several results may share. Columns: `key` (content key), `start` (UTC), the
        metrics (`cv.lwlrap`, `lb.public`, …; NaN where a result lacks one) and the parameters as text
        (`loss.neg_mask`, …).

    Raises:
        UserError: there is no result yet, or the database cannot be read.

    Example:
        >>> import callboard
        >>> results = callboard.board()
        >>> bool(results["cv.lwlrap"].between(0, 1).all())
        True
        >>> results["loss.neg_mask"].tolist()
        ['none']
    """
    rows = read_rows()
    facts = [{"key": row.key, "start": row.start} | row.metrics | row.params for row in rows]
    return pd.DataFrame(facts, index=pd.Index([row.name for row in rows], name="name"))


def parameters(name: str) -> "pd.Series[Any]":
    """Return all parameters of a result, the defaults of those that its params.yaml left out included.

    Returns:
        Indexed by dotted key; numbers, lists and None as Python objects.

    Raises:
        UserError: no result has that name.

    Example:
        >>> import callboard
        >>> callboard.parameters("HEAD")["train.epochs"]
        2
    """
    found = {key: text_value(text) for key, text in result_named(name).params.items()}
    return pd.Series(found, dtype=object, name=name).rename_axis("parameter")


def oof_scores(name: str) -> pd.DataFrame:
    """Return the out-of-fold scores of a result: of each recording by the network that did not train on it.

    Returns:
        (recordings, species) probabilities, indexed by recording_id, a column for each species_id.

    Raises:
        UserError: no result has that name, or DVC's cache has lost the table.

    Example:
        >>> import callboard
        >>> scores = callboard.oof_scores("HEAD")
        >>> list(scores.columns)
        ['0', '1', '2']
        >>> bool(((scores >= 0) & (scores <= 1)).all(axis=None))
        True
    """
    return _oof_scores(result_named(name))


def _oof_scores(result: Result) -> pd.DataFrame:
    table = read_score_table(result.output(OUT_OF_FOLD)).set_index("recording_id")
    scores = table[score_columns_in(table)]
    return scores.rename(columns=lambda column: column.removeprefix("s")).rename_axis(columns="species_id")


def oof_truth(name: str) -> pd.DataFrame:
    """Return what CV compares out-of-fold scores with: the species confirmed in each recording.

    Returns:
        (recordings, species) booleans, with the index and columns of `oof_scores`. False includes species
        that nobody has looked for.

    Raises:
        UserError: as `oof_scores`.

    Example:
        CV is the LWLRAP over recordings with a confirmed call:

        >>> import callboard
        >>> truth, scores = callboard.oof_truth("HEAD"), callboard.oof_scores("HEAD")
        >>> value = callboard.lwlrap(truth.to_numpy(), scores.to_numpy())
        >>> bool(abs(value - callboard.board()["cv.lwlrap"].iloc[-1]) < 1e-5)
        True
    """
    result = result_named(name)
    scores, confirmed = _oof_scores(result), confirmed_in(result.output(CLIPS))
    is_present = species_presence(confirmed, list(scores.index), list(scores.columns))
    return pd.DataFrame(is_present, index=scores.index, columns=scores.columns)
