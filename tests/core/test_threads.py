import threading
import time

import pytest

from callboard.core.errors import UserError
from callboard.core.threads import ahead, n_workers


def test_results_come_in_order_whichever_is_done_first():
    def job(number):
        time.sleep(0.01 if number % 3 == 0 else 0)
        return number

    assert list(ahead(job, range(20), n_threads=4, n_ahead=6)) == list(range(20))


def test_a_slow_reader_is_not_flooded():
    begun = []
    for n_read, _ in enumerate(ahead(begun.append, range(50), n_threads=3, n_ahead=5), start=1):
        time.sleep(0.001)
        assert len(begun) <= n_read + 5


def test_a_failure_cancels_what_has_not_begun():
    begun = []

    def job(number):
        begun.append(number)
        time.sleep(0.01)
        raise RuntimeError(str(number))

    with pytest.raises(RuntimeError, match=r"^0$"):
        list(ahead(job, range(50), n_threads=1, n_ahead=40))
    assert len(begun) <= 2


def test_a_reader_that_stops_leaves_no_threads():
    n_before = threading.active_count()
    results = ahead(lambda number: number, range(50), n_threads=4, n_ahead=8)
    assert next(results) == 0
    results.close()
    assert threading.active_count() == n_before


@pytest.mark.parametrize("text", ["many", "0", "-1", ""])
def test_the_number_of_workers_must_be_one(monkeypatch, text):
    monkeypatch.setenv("CALLBOARD_WORKERS", text)
    with pytest.raises(UserError, match="CALLBOARD_WORKERS is"):
        n_workers()
