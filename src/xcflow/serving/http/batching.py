"""Requests that come at the same time share a pass of the model.

A lone request is answered at once. While passes are under way, what arrives gathers until it is
worth a pass of its own, or one of them ends: so many cost each little more than half of one alone.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from xcflow.cores import allowed_threads, at_most
from xcflow.phases import OTHER, timed
from xcflow.serving.http.metrics import Metrics

# A lone question that takes less is answered right in the event loop: waking a thread and being
# woken by it would take a fifth of that time.
_SHORT_S = 0.02
_REMEMBERED = 20  # passes that the mean reaches back
_ENOUGH = 16  # texts from which on a text's share of a pass hardly falls

Q = TypeVar("Q")
A = TypeVar("A")


class FullError(Exception):
    """Too many texts wait already."""


@dataclass(eq=False)
class _Waiting(Generic[Q, A]):
    question: Q
    answer: asyncio.Future[A]
    since: float = field(default_factory=time.perf_counter)


class Batcher(Generic[Q, A]):
    """Gathers questions and has them answered together.

    Args:
        answer: Questions in, their answers in the same order; runs in threads of its own. What it
            raises, asked that question alone, is raised to who asked it.
        most: Questions that share a pass.
        room: Questions that may wait.
        metrics: Gets sizes and times.
        is_light: Whether a question takes no longer than most.
        passes: How many may be under way, if the process may use as many threads, which they share.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Q]], Sequence[A]],
        most: int,
        room: int,
        metrics: Metrics,
        is_light: Callable[[Q], bool] = lambda _: False,
        passes: int = 1,
    ) -> None:
        self._answer = answer
        self._is_light = is_light
        self._most = most
        self._room = room
        self._metrics = metrics
        self._waiting: deque[_Waiting[Q, A]] = deque()
        self._passes = min(passes, allowed_threads())
        self._under_way: dict[asyncio.Future[Sequence[A | Exception]], list[_Waiting[Q, A]]] = {}
        self._changed = asyncio.Event()
        self._ending = False
        self._threads = ThreadPoolExecutor(self._passes, thread_name_prefix="answers")
        self._threads_of_each = allowed_threads() // self._passes
        self._task: asyncio.Task[None] | None = None
        self._seconds = 2 * _SHORT_S  # what a pass takes, a moving mean

    def start(self) -> None:
        """Begin to answer, in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Answer what waits, then end."""
        self._ending = True
        self._changed.set()
        if self._task:
            await self._task
        self._threads.shutdown()

    async def ask(self, questions: Sequence[Q], seconds: float) -> list[A]:
        """The answers to questions.

        Args:
            questions: What to answer, in one pass or several.
            seconds: How long at most.

        Raises:
            FullError: There is no room for them.
            TimeoutError: They took too long; what has not begun is not begun any more.
        """
        if self._waiting and len(self._waiting) + len(questions) > self._room:
            self._metrics.refused_requests.inc()
            raise FullError
        loop = asyncio.get_running_loop()
        asked = [_Waiting[Q, A](question, loop.create_future()) for question in questions]
        self._waiting.extend(asked)
        self._metrics.waiting.set(len(self._waiting))
        self._changed.set()
        try:
            async with asyncio.timeout(seconds):
                return [await each.answer for each in asked]
        finally:
            self._forget(asked)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting or self._under_way or not self._ending:
            await self._changed.wait()
            self._changed.clear()
            while batch := self._next():
                others = self._under_way or self._waiting
                if not others and len(batch) == 1 and self._is_short(batch[0].question):
                    _hand_out(batch, self._pass(batch))
                    continue
                answers = loop.run_in_executor(self._threads, self._pass_beside_others, batch)
                self._under_way[answers] = batch
                answers.add_done_callback(self._end)

    def _end(self, answers: asyncio.Future[Sequence[A | Exception]]) -> None:
        self._changed.set()
        _hand_out(self._under_way.pop(answers), answers.result())

    def _is_short(self, question: Q) -> bool:
        return self._seconds < _SHORT_S and self._is_light(question)

    def _forget(self, asked: Sequence[_Waiting[Q, A]]) -> None:
        """Keep nothing of questions whose asker waits no longer."""
        left = False
        for each in asked:
            if each.answer.cancel():
                left = True
            elif not each.answer.cancelled():
                each.answer.exception()  # one of several was raised; the others are looked at
        if left:  # they take no one's room
            self._waiting = deque(each for each in self._waiting if not each.answer.done())
            self._metrics.waiting.set(len(self._waiting))

    def _next(self) -> list[_Waiting[Q, A]]:
        """Those who wait longest, if a pass shall begin: their share, were all passes alike."""
        waiting = len(self._waiting)
        asked = waiting + sum(map(len, self._under_way.values()))
        if len(self._under_way) == self._passes or waiting < min(asked // self._passes, _ENOUGH):
            return []
        size = min(-(-asked // self._passes), waiting, self._most)
        batch = [self._waiting.popleft() for _ in range(size)]
        self._metrics.waiting.set(len(self._waiting))
        return batch

    def _pass_beside_others(self, batch: Sequence[_Waiting[Q, A]]) -> Sequence[A | Exception]:
        with at_most(self._threads_of_each):
            return self._pass(batch)

    def _pass(self, batch: Sequence[_Waiting[Q, A]]) -> Sequence[A | Exception]:
        now = time.perf_counter()
        with timed() as clock:
            answers = self._answers([each.question for each in batch])
        phases = {k: v for k, v in clock.phases().items() if k != OTHER}
        self._seconds += (time.perf_counter() - now - self._seconds) / _REMEMBERED
        self._metrics.batches.observe(len(batch))
        self._metrics.timed({"waiting": now - batch[0].since, **phases})
        return answers

    def _answers(self, questions: Sequence[Q]) -> Sequence[A | Exception]:
        try:
            return self._answer(questions)
        except Exception as error:  # noqa: BLE001  # goes to who asked
            if len(questions) == 1:
                return [error]
        # One of them is at fault, which shall not be felt by the others.
        return [self._answers([question])[0] for question in questions]


def _hand_out(batch: Sequence[_Waiting[Q, A]], answers: Sequence[A | Exception]) -> None:
    for each, answer in zip(batch, answers, strict=True):
        if each.answer.done():
            continue
        if isinstance(answer, Exception):
            each.answer.set_exception(answer)
        else:
            each.answer.set_result(answer)
