from pathlib import Path

import numpy as np

from callboard.analysis.adversarial.pieces import mel_bands, read_pieces
from callboard.features.frame_cache import EncodedRecording, MelCache, write_cache


def test_pieces_by_hand(tmp_path: Path) -> None:
    """Recordings of 250, 20 and 50 frames in pieces of 100: two, one and one."""
    ramp = np.arange(250, dtype=np.uint8)[:, None] + np.zeros(2, np.uint8)
    recordings = [
        EncodedRecording(name, frames, -60.0, -10.0)
        for name, frames in (("long", ramp), ("short", ramp[:20]), ("other", ramp[:50]))
    ]
    write_cache(tmp_path / "train", recordings[:2], 2)
    write_cache(tmp_path / "test", recordings[2:], 2)
    caches = [MelCache.open(tmp_path / subset) for subset in ("train", "test")]

    pieces = read_pieces(caches[0], caches[1], piece_frames=100, in_decibels=False)
    assert pieces.recording_ids == ["long", "short", "other"]
    assert pieces.recording.tolist() == [0, 0, 1, 2]
    assert pieces.is_test.tolist() == [False, False, True]
    assert pieces.statistics.shape == (4, 2, 4)
    second = np.arange(100, 200) / 255
    expected = [second.mean(), second.std(), np.quantile(second, 0.1), np.quantile(second, 0.9)]
    np.testing.assert_allclose(pieces.statistics[1], [expected] * 2, rtol=1e-5)
    np.testing.assert_allclose(pieces.statistics[2, :, 0], np.arange(20).mean() / 255, rtol=1e-5)
    assert pieces.of_train().recording.tolist() == [0, 0, 1]
    assert pieces.of_train().recording_ids == ["long", "short"]

    decibels = read_pieces(caches[0], caches[1], piece_frames=100, in_decibels=True)
    mean, deviation, *quantiles = np.array(expected) * 50
    np.testing.assert_allclose(
        decibels.statistics[1], [[mean - 60, deviation, *(np.array(quantiles) - 60)]] * 2, rtol=1e-5
    )


def test_bands_cover_all_mel_rows_evenly() -> None:
    for n_mels, n_bands in ((64, 16), (50, 16), (5, 5), (1, 1)):
        bands = mel_bands(n_mels)
        assert len(bands) == n_bands
        assert [row for band in bands for row in range(n_mels)[band]] == list(range(n_mels))
        sizes = [band.stop - band.start for band in bands]
        assert max(sizes) - min(sizes) <= 1
