"""Requests that come at the same time share a pass of the model.

Nothing waits for company: while a pass is under way, what arrives gathers, and the next pass takes
it. So a lone request is answered at once, and many cost little more than one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from xcflow.phases import OTHER, timed
from xcflow.serving.http.metrics import Metrics

# A lone question that takes less is answered right in the event loop: waking a thread and being
# woken by it would take a fifth of that time.
_SHORT_S = 0.005
_REMEMBERED = 20  # passes that the mean reaches back

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
        answer: Questions in, their answers in the same order; runs in a thread of its own. An
            answer that is an exception is raised to who asked that question.
        most: Questions that share a pass.
        room: Questions that may wait.
        metrics: Gets sizes and times.
        is_light: Whether a question takes no longer than most.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Q]], Sequence[A | Exception]],
        most: int,
        room: int,
        metrics: Metrics,
        is_light: Callable[[Q], bool] = lambda _: False,
    ) -> None:
        self._answer = answer
        self._is_light = is_light
        self._most = most
        self._room = room
        self._metrics = metrics
        self._waiting: deque[_Waiting[Q, A]] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="answers")
        self._task: asyncio.Task[None] | None = None
        self._seconds = 2 * _SHORT_S  # what a pass takes, a moving mean

    def start(self) -> None:
        """Begin to answer, in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Answer what waits, then end."""
        while self._waiting:
            await asyncio.sleep(0.01)
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown()

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
            raise FullError
        loop = asyncio.get_running_loop()
        asked = [_Waiting[Q, A](question, loop.create_future()) for question in questions]
        self._waiting.extend(asked)
        self._metrics.waiting.set(len(self._waiting))
        self._arrived.set()
        try:
            async with asyncio.timeout(seconds):
                return [await each.answer for each in asked]
        finally:
            for each in asked:
                if not each.answer.cancel() and not each.answer.cancelled():
                    each.answer.exception()  # one of several was raised; the others are looked at

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            batch = self._next()
            if not batch:
                self._arrived.clear()
                continue
            answers: Sequence[A | Exception]
            try:
                if len(batch) == 1 and self._is_short(batch[0].question):
                    answers = self._pass(batch)
                else:
                    answers = await loop.run_in_executor(self._thread, self._pass, batch)
            except Exception as error:  # noqa: BLE001  # goes to those who asked
                answers = [error] * len(batch)
            for each, answer in zip(batch, answers, strict=True):
                if each.answer.done():
                    continue
                if isinstance(answer, Exception):
                    each.answer.set_exception(answer)
                else:
                    each.answer.set_result(answer)

    def _is_short(self, question: Q) -> bool:
        return self._seconds < _SHORT_S and self._is_light(question)

    def _next(self) -> list[_Waiting[Q, A]]:
        """Those who wait longest and have not gone away."""
        batch: list[_Waiting[Q, A]] = []
        while self._waiting and len(batch) < self._most:
            first = self._waiting.popleft()
            if not first.answer.done():
                batch.append(first)
        self._metrics.waiting.set(len(self._waiting))
        return batch

    def _pass(self, batch: Sequence[_Waiting[Q, A]]) -> Sequence[A | Exception]:
        now = time.perf_counter()
        with timed() as clock:
            answers = self._answer([each.question for each in batch])
        phases = {k: v for k, v in clock.times().phases.items() if k != OTHER}
        self._seconds += (time.perf_counter() - now - self._seconds) / _REMEMBERED
        self._metrics.batches.observe(len(batch))
        self._metrics.timed({"waiting": now - batch[0].since, **phases})
        return answers
