"""The embedded soundscapes: recordings with the layout and the troubles of the competition, truth known."""

from pathlib import Path

from callboard.data.soundscapes.scenes import build_world
from callboard.data.soundscapes.writer import write_soundscapes
from callboard.data.source_tables import SourceTables
from callboard.params.data import DemoParams

__all__ = ["build_world", "make_soundscapes"]


def make_soundscapes(demo: DemoParams, sample_rate: int, folder: Path) -> SourceTables:
    """Recordings and truth in `folder`, which must be empty; the tables are returned, not written.

    The same arguments give the same bytes, on any number of threads.
    """
    return write_soundscapes(demo, build_world(demo, sample_rate), folder)
