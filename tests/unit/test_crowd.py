"""What hundreds of requests that wait cost the event loop, in looks at them and not in time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from whisper_api.config import Settings
from whisper_api.errors import Overloaded
from whisper_api.fairness import FairQueue, Share, Waiting
from whisper_api.scheduler import Scheduler, Ticket
from whisper_api.types import Lane

CROWD = 300


class Looks:
    """How often the seconds of a ticket were read."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count = 0

        def get(ticket: Ticket) -> float:
            self.count += 1
            found: float = vars(ticket)["seconds"]
            return found

        def put(ticket: Ticket, seconds: float) -> None:
            vars(ticket)["seconds"] = seconds

        patch.setattr(Ticket, "seconds", property(get, put), raising=False)

    def of(self, work: Callable[[], object]) -> int:
        self.count = 0
        work()
        return self.count


async def test_a_look_at_the_queue_takes_one_at_each_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = Looks(monkeypatch)
    scheduler = Scheduler(Settings(max_concurrent_requests=CROWD))
    for number in range(CROWD):
        scheduler.admit(list(Lane)[number % 3], number / 10)

    def refused() -> None:
        with pytest.raises(Overloaded):
            scheduler.admit()

    for work in (
        refused,
        scheduler.places,
        scheduler.state,
        lambda: scheduler.outlook(Lane.TASK, 10),
    ):
        assert 0 < looks.of(work) <= 4 * CROWD


@pytest.mark.parametrize("batch", [8, 64])
def test_packing_a_batch_looks_at_each_request_a_few_times(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def dead(job: int) -> bool:
        nonlocal looks
        looks += 1
        return False

    def rank(share: Share[int], entry: Waiting[int]) -> tuple[float, float, bool]:
        nonlocal looks
        looks += 1
        return plain(share, entry)

    queue: FairQueue[int] = FairQueue(dead, task_share=0.1)
    plain = queue._rank
    monkeypatch.setattr(queue, "_rank", rank)
    for lane in (Lane.INTERACTIVE, Lane.TASK):
        for number in range(CROWD // 2):
            share = queue.join(lane)
            for job in range(2):
                queue.push(share, number, 1.0, "key", job)
    queue.take(1)
    looks = 0
    assert len(queue.take(batch)) == batch
    assert looks <= 4 * CROWD + 4 * batch
