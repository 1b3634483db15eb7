"""CV as it would be if pseudo-labels were true: how the author measured his, and what it is too high by."""

from callboard.data.clips import read_clips
from callboard.data.score_tables import read_score_table
from callboard.results.result import CLIPS, OUT_OF_FOLD, Result
from callboard.scoring.evaluation import relabeled_lwlrap


def relabeled_cv(result: Result) -> tuple[float, float]:
    """LWLRAP out of fold on the experts' labels, and with the pseudo-labels of the last round beside them.

    Args:
        result: Of pseudo-labels; of one without pseudo-labels both are the same.

    Raises:
        UserError: a file is not in the cache.
    """
    out_of_fold = read_score_table(result.output(OUT_OF_FOLD))
    clips = read_clips(result.output(CLIPS))
    of_experts = relabeled_lwlrap(out_of_fold, clips, clips.head(0))
    if not (last := int(result.params["pseudo.rounds"])):
        return of_experts, of_experts
    return of_experts, relabeled_lwlrap(out_of_fold, clips, read_clips(result.output(f"pseudo/r{last}.csv")))
