"""The lines of the board that were asked for, with verdicts by the noise among all results."""

from collections.abc import Sequence

from callboard.analysis.choice import Choice, chosen, is_named
from callboard.analysis.lines import Block, Blocks, judged, lines_of_results, lines_of_table
from callboard.core.errors import UserError
from callboard.experiments.captions import read_captions
from callboard.experiments.table import read_experiments
from callboard.reports.board.columns import name_of
from callboard.results.rows import BoardRow


def result_blocks(rows: Sequence[BoardRow], choice: Choice) -> Blocks:
    """One block of results.

    Args:
        rows: All results, oldest first.
        choice: Which of them, in which order.

    Raises:
        UserError: as `chosen`.
    """
    return judged(lines_of_results(rows, read_captions(), chosen(rows, choice)), rows)


def author_blocks(rows: Sequence[BoardRow], choice: Choice, block: str | None) -> Blocks:
    """The author's rows in his order, with their results; without empty blocks.

    Args:
        rows: All results, oldest first.
        choice: Of the lines; what is asked of results leaves no row without one.
        block: Of the table, the only one that is wanted.

    Raises:
        UserError: there is no such block, or as `chosen`.
    """
    found = lines_of_table(rows, read_experiments(), read_captions())
    if block:
        found = [_block(found, block)]
    if choice.is_of_results:
        kept = {row.key for row in chosen(rows, choice)}
        found = [[line for line in lines if line.row and line.row.key in kept] for lines in found]
    elif choice.names:
        found = [[line for line in lines if is_named(choice.names, name_of(line))] for lines in found]
    return judged([lines for lines in found if lines], rows)


def _block(blocks: Blocks, name: str) -> Block:
    there = {str(lines[0].entry.block): lines for lines in blocks if lines[0].entry}
    if name not in there:
        raise UserError(f"--block {name}: there is none; the table has {', '.join(there)}")
    return there[name]
