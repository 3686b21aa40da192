import asyncio
import threading
import time

import pytest

from xcflow.cores import allowed_threads
from xcflow.serving.http.batching import Batcher, FullError

PATIENCE = 30


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "6")


class Gate:
    """Answers numbers by their doubles, each pass when it is let through."""

    def __init__(self, open_=True):
        self.passes = []
        self.begun, self.may = threading.Semaphore(0), threading.Semaphore(0)
        if open_:
            self.let_through()

    def __call__(self, questions):
        self.passes.append(list(questions))
        self.begun.release()
        assert self.may.acquire(timeout=PATIENCE)
        if "bad" in questions:
            raise ValueError("a bad question")
        return [2 * each for each in questions]

    def let_through(self, passes=1_000):
        self.may.release(passes)

    async def has_begun(self):
        await asyncio.to_thread(self.begun.acquire)


def run(scenario, answer, metrics, most=4, room=8, passes=1):
    async def whole():
        batcher = Batcher(answer, most, room, metrics, passes=passes)
        batcher.start()
        try:
            return await scenario(batcher)
        finally:
            answer.let_through()
            await batcher.stop()

    return asyncio.run(whole())


async def turn():
    """Let what was just begun get as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def one_of_two_has_ended(batcher, gate, value):
    """Two passes of three questions each, one of which is still under way."""
    both = [asyncio.create_task(batcher.ask(each, PATIENCE)) for each in ([1, 2, 3], [4, 5, 6])]
    for _ in range(2):
        await gate.has_begun()
    assert value("xcflow_texts_waiting") == 0
    gate.let_through(1)
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    return both


def test_who_comes_while_a_pass_is_under_way_shares_the_next_one(metrics, value):
    gate = Gate(open_=False)

    async def scenario(batcher):
        first = asyncio.create_task(batcher.ask([1], PATIENCE))
        await gate.has_begun()
        others = [asyncio.create_task(batcher.ask([i, 10 * i], PATIENCE)) for i in (2, 3)]
        await turn()
        assert value("xcflow_texts_waiting") == 4
        gate.let_through()
        return await asyncio.gather(first, *others)

    assert run(scenario, gate, metrics) == [[2], [4, 40], [6, 60]]
    assert gate.passes == [[1], [2, 20, 3, 30]]
    assert value("xcflow_batch_texts_count") == 2
    assert value("xcflow_batch_texts_sum") == 5
    assert value("xcflow_texts_waiting") == 0
    assert value('xcflow_stage_seconds_count{stage="waiting"}') == 2


def test_passes_under_way_at_a_time_share_what_waits(metrics, value):
    gate = Gate(open_=False)

    async def scenario(batcher):
        first = asyncio.create_task(batcher.ask(list(range(10)), PATIENCE))
        for _ in range(2):
            await gate.has_begun()
        last = asyncio.create_task(batcher.ask([10], PATIENCE))
        await turn()
        assert value("xcflow_texts_waiting") == 1  # both are busy
        gate.let_through()
        return await first, await last

    answers = run(scenario, gate, metrics, most=8, passes=2)
    assert answers == ([2 * each for each in range(10)], [20])
    assert sorted(gate.passes[:2]) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_a_second_pass_begins_when_enough_wait_for_it(metrics, value):
    gate = Gate(open_=False)

    async def scenario(batcher):
        both = await one_of_two_has_ended(batcher, gate, value)
        seventh = asyncio.create_task(batcher.ask([7], PATIENCE))
        await turn()
        assert value("xcflow_texts_waiting") == 1  # the other pass answers three
        eighth = asyncio.create_task(batcher.ask([8], PATIENCE))
        await gate.has_begun()
        assert value("xcflow_texts_waiting") == 0
        gate.let_through()
        return await asyncio.gather(*both, seventh, eighth)

    answers = run(scenario, gate, metrics, passes=2)
    assert answers == [[2, 4, 6], [8, 10, 12], [14], [16]]
    assert gate.passes[2] == [7, 8]


def test_what_waits_for_company_goes_on_without_it_when_a_pass_ends(metrics, value):
    gate = Gate(open_=False)

    async def scenario(batcher):
        await one_of_two_has_ended(batcher, gate, value)
        last = asyncio.create_task(batcher.ask([7], PATIENCE))
        await turn()
        assert value("xcflow_texts_waiting") == 1
        gate.let_through()
        return await last

    assert run(scenario, gate, metrics, passes=2) == [14]


@pytest.mark.parametrize(("passes", "share"), [(1, 6), (3, 2), (64, 1)])
def test_a_pass_beside_others_is_held_to_its_share_of_the_threads(metrics, passes, share):
    seen = []

    class Seeing(Gate):
        def __call__(self, questions):
            seen.append(allowed_threads())
            return super().__call__(questions)

    run(lambda batcher: batcher.ask([1, 2, 3, 4], PATIENCE), Seeing(), metrics, passes=passes)
    assert set(seen) == {share}
    assert allowed_threads() == 6


def test_only_a_lone_question_is_answered_in_the_loop(metrics):
    threads = []

    def answer(questions):
        threads.append(threading.current_thread())
        return questions

    async def scenario():
        batcher = Batcher(answer, 4, 8, metrics, lambda _: True, passes=2)
        batcher.start()
        for _ in range(40):  # until it knows that they are short
            await batcher.ask([0], PATIENCE)
        lone = threads[-1]
        await batcher.ask([1, 2], PATIENCE)
        await batcher.stop()
        return lone

    here = threading.current_thread()
    assert asyncio.run(scenario()) is here
    assert here not in threads[40:]
    assert len(threads) == 42


def test_a_long_request_takes_several_passes_and_keeps_its_order(metrics):
    gate = Gate()
    asked = list(range(11))
    answers = run(lambda batcher: batcher.ask(asked, PATIENCE), gate, metrics)
    assert answers == [2 * each for each in asked]
    assert [len(each) for each in gate.passes] == [4, 4, 3]


def test_without_room_a_request_is_sent_away(metrics, value):
    gate = Gate(open_=False)

    async def scenario(batcher):
        first = asyncio.create_task(batcher.ask([1], PATIENCE))
        await gate.has_begun()
        second = asyncio.create_task(batcher.ask([2] * 8, PATIENCE))
        await turn()
        with pytest.raises(FullError):
            await batcher.ask([3], PATIENCE)
        gate.let_through()
        return await asyncio.gather(first, second)

    assert run(scenario, gate, metrics) == [[2], [4] * 8]
    assert value("xcflow_requests_sent_away_total") == 1


def test_who_gives_up_takes_no_room_and_is_not_answered(metrics, value):
    gate = Gate(open_=False)

    async def scenario(batcher):
        first = asyncio.create_task(batcher.ask([1], PATIENCE))
        await gate.has_begun()
        with pytest.raises(TimeoutError):
            await batcher.ask([2] * 8, 0.01)
        assert value("xcflow_texts_waiting") == 0
        last = asyncio.create_task(batcher.ask([3] * 8, PATIENCE))
        await turn()
        gate.let_through()
        return await asyncio.gather(first, last)

    assert run(scenario, gate, metrics) == [[2], [6] * 8]
    assert gate.passes == [[1], [3] * 4, [3] * 4]


def test_who_gives_up_during_the_pass_disturbs_nobody(metrics):
    gate = Gate(open_=False)

    async def scenario(batcher):
        with pytest.raises(TimeoutError):
            await batcher.ask([1], 0.01)
        gate.let_through()
        return await batcher.ask([2], PATIENCE)

    assert run(scenario, gate, metrics) == [4]


def test_an_error_goes_to_who_caused_it_alone(metrics):
    gate = Gate(open_=False)

    async def scenario(batcher):
        first = asyncio.create_task(batcher.ask([1], PATIENCE))
        await gate.has_begun()
        rest = [asyncio.create_task(batcher.ask(each, PATIENCE)) for each in ([2], ["bad", 3], [4])]
        await turn()
        gate.let_through()
        return await asyncio.gather(first, *rest, return_exceptions=True)

    first, good, bad, last = run(scenario, gate, metrics)
    assert (first, good, last) == ([2], [4], [8])
    assert isinstance(bad, ValueError)


def test_stopping_answers_what_waits_and_what_is_under_way(metrics):
    gate = Gate(open_=False)

    async def scenario():
        batcher = Batcher(gate, 4, 8, metrics)
        batcher.start()
        asked = [asyncio.create_task(batcher.ask([1], PATIENCE))]
        await gate.has_begun()
        asked.append(asyncio.create_task(batcher.ask([2] * 8, PATIENCE)))
        await turn()
        stopping = asyncio.create_task(batcher.stop())
        await turn()
        gate.let_through()
        await stopping
        return [each.result() for each in asked if each.done()]

    assert asyncio.run(scenario()) == [[2], [4] * 8]


def test_many_askers_at_once_get_their_own_answers(metrics):
    async def scenario(batcher):
        asked = [batcher.ask([i, -i], PATIENCE) for i in range(200)]
        return await asyncio.gather(*asked)

    answers = run(scenario, Gate(), metrics, most=7, room=1000)
    assert answers == [[2 * i, -2 * i] for i in range(200)]


def test_a_lone_request_waits_for_no_company(metrics):
    start = time.perf_counter()
    run(lambda batcher: batcher.ask([1], PATIENCE), Gate(), metrics, most=64)
    assert time.perf_counter() - start < 5  # nobody else ever comes
