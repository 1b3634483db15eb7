"""CV as it would be if pseudo-labels were true: how the author measured his, and what it is too high by."""

from callboard.data.clips import read_clips
from callboard.data.score_tables import read_score_table
from callboard.results.files import Source
from callboard.results.result import CLIPS, OUT_OF_FOLD
from callboard.scoring.evaluation import relabeled_lwlrap


def relabeled_cv(source: Source) -> tuple[float, float]:
    """LWLRAP out of fold on the experts' labels, and with the pseudo-labels of the last round beside them.

    Args:
        source: A result; of one without pseudo-labels both are the same.

    Raises:
        UserError: a file is not in the cache.
    """
    out_of_fold = read_score_table(source.output(OUT_OF_FOLD))
    clips = read_clips(source.output(CLIPS))
    of_experts = relabeled_lwlrap(out_of_fold, clips, clips.head(0))
    if not (last := int(source.result.params["pseudo.rounds"])):
        return of_experts, of_experts
    return of_experts, relabeled_lwlrap(out_of_fold, clips, read_clips(source.output(f"pseudo/r{last}.csv")))
