"""The question that a CV answers, in every report that shows one."""

from dataclasses import replace

import pytest

from callboard.analysis.lines import BoardLine, judged, lines_of_results
from callboard.analysis.pair import Pair
from callboard.reports.board.formats import as_csv, board_markdown
from callboard.reports.cv_question import cv_holds_for, question_legend, question_sentence, question_text
from callboard.reports.details import details
from callboard.reports.diff import verdict_sentence
from callboard.results.rows import CV, BoardRow
from tests.toy_seeds import START

PLAIN = BoardRow(
    "plain", {"seed": "1", "split.group": "recording"}, {CV: 0.8}, START, "", {}, key="p", data_md5="d"
)
SITES = replace(
    PLAIN,
    name="sites",
    key="s",
    params=PLAIN.params | {"split.group": "site"},
    metrics={CV: 0.6, "cv.n_groups": 12.0},
)
FEW = replace(SITES, name="few", key="f", metrics={CV: 0.6, "cv.n_groups": 6.0})


def of_group(group: str) -> BoardRow:
    return replace(PLAIN, params={"split.group": group})


@pytest.mark.parametrize(
    ("group", "question"),
    [
        ("recording", "new recordings of these places"),
        ("site", "recordings of a new site"),
        ("recordist", "recordings of a new recordist"),
        ("SITE_YYYYMMDD_HHMMSS", "recordings of a new site"),
        ("fold", "recordings as the folds of recordings.csv hold them out"),
    ],
)
def test_each_way_to_group_recordings_asks_a_question(group: str, question: str) -> None:
    assert cv_holds_for(of_group(group)) == question


def test_a_result_older_than_groups_holds_for_new_recordings() -> None:
    assert question_text(replace(PLAIN, params={})) == "new recordings of these places"


def test_few_groups_are_said_to_cover_less() -> None:
    assert question_text(SITES) == "recordings of a new site (12 groups)"
    assert question_text(FEW).startswith(
        "recordings of a new site (6 groups); 6 groups are few: even over 6, only"
    )


def test_copies_of_recordings_are_not_counted_as_places() -> None:
    copies = replace(PLAIN, metrics=PLAIN.metrics | {"cv.n_groups": 9.0})
    assert question_text(copies) == "new recordings of these places"


def test_labels_of_recordings_in_no_fold_may_be_of_the_sites_held_out() -> None:
    learned = {"pseudo.rounds": "1", "pseudo.source": "train_external"}
    limit = "; networks also learned from unlabelled recordings, which may be of the groups held out"
    assert question_text(replace(SITES, params=SITES.params | learned)).endswith(limit)
    inside = learned | {"pseudo.source": "train"}
    assert limit not in question_text(replace(SITES, params=SITES.params | inside))
    assert limit not in question_text(replace(PLAIN, params=PLAIN.params | learned))


def test_the_board_has_one_line_that_names_results_only_if_questions_differ() -> None:
    assert question_legend([PLAIN, PLAIN]) == "CV holds for new recordings of these places."
    assert question_legend([]) == ""
    found = question_legend([PLAIN, SITES, FEW])
    for_sites = "for recordings of a new site (sites, few). 6 groups are few: "
    assert found.startswith(f"CV holds for new recordings of these places (plain); {for_sites}")
    assert found.endswith(" hold the truth (few).")
    assert question_legend([FEW, FEW]).endswith(" hold the truth.")
    ((plain, sites),) = blocks = judged(lines_of_results([PLAIN, SITES], {}), [PLAIN, SITES])
    assert (plain.best, sites.best) == (PLAIN, SITES)
    text = board_markdown(blocks)
    assert text.count("CV holds for") == 1
    assert ",recordings of a new site," in as_csv(lines_of_results([SITES], {}))


def test_show_says_it_below_the_score() -> None:
    lines = details(BoardLine(FEW), [], None, []).splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("CV "))
    assert lines[place + 1].startswith("holds for   recordings of a new site (6 groups); 6 groups are few")


def test_a_diff_says_where_two_results_answer_different_questions() -> None:
    assert question_sentence(SITES, FEW).startswith("CV holds for recordings of a new site (6 groups)")
    found = question_sentence(PLAIN, SITES)
    assert found == (
        "The two CVs answer different questions: that of plain for new recordings of these places, that of "
        "sites for recordings of a new site (12 groups). The change has its interval over the larger groups."
    )
    assert verdict_sentence(Pair(PLAIN, SITES, None, None, {})) == "One of the two results has no CV."
