"""Hands items to an executor in batches, and takes in the results; no single item can stop it without being named."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from itertools import islice
from queue import SimpleQueue
from typing import Any, TypeVar

from common.errors import UserError
from common.images import memory
from common.remote import Location
from common.workers.process_pool import WorkerDied

Item = TypeVar("Item")
Result = TypeVar("Result")

_WINDOW = 64  # tasks handed over at a time: the rest of a million need no memory yet
_DEATHS = 4  # of workers that ran an item and nothing else, before it is rejected
_FAILURES = 40  # of batches or items with no result between them, before it is the machine rather than the items


class DispatchError(UserError):
    """Workers die, or have too little memory; the message names the file and the fix."""


def results(
    run: Callable[[Sequence[Item]], Sequence[Result]],
    batches: Iterator[Sequence[Item]],
    executor: Executor,
    file: Callable[[Item], str | Location],
    failed: Callable[[Item, WorkerDied], Result],
    *,
    most: int | None = None,
) -> Iterator[Sequence[Result]]:
    """Yield what `run` makes of batches of items as it comes in, which need not be in their order.

    The items of a batch whose worker dies, or runs out of memory, are run again at the end, each alone: of a cluster's
    workers it isn't known which of the tasks that they had they died of.

    Args:
        run: gives a result for each item of a batch; it must bear to be run again.
        batches: the items.
        executor: any `concurrent.futures.Executor`; it may say in `window` how many tasks it takes at a time.
        file: which file an item is made of, for messages.
        failed: makes the result of an item that each worker dies of which runs it.
        most: tasks in flight, whose results may all have come before one is asked for; None: as many as keep all busy.

    Raises:
        DispatchError: one item takes more memory than a worker has, or all workers die.
        BrokenExecutor: the executor can't start workers, or doesn't replace dead ones. What `run` raises is raised too.
    """
    pending: dict[Future[Sequence[Result]], Sequence[Item]] = {}
    finished: SimpleQueue[Future[Sequence[Result]]] = SimpleQueue()
    suspects: deque[Item] = deque()
    deaths = failures = 0

    def submit(batch: Sequence[Item]) -> None:
        future = executor.submit(memory.checked, run, batch)
        pending[future] = batch
        future.add_done_callback(finished.put)

    try:
        while True:
            window = getattr(executor, "window", _WINDOW)
            while len(pending) < (window if most is None else min(window, most)) and (batch := next(batches, ())):
                submit(batch)
            is_alone = not pending
            if is_alone:
                if not suspects:
                    return
                submit([suspects[0]])
            future = finished.get()
            batch, error = pending.pop(future), future.exception()
            if not error:
                if is_alone:
                    suspects.popleft()
                deaths = failures = 0
                yield future.result()
                continue
            if not isinstance(error, WorkerDied | MemoryError):
                raise error
            if not is_alone:
                suspects.extend(batch)
            elif isinstance(error, MemoryError):
                raise DispatchError(
                    f"{file(batch[0])}: not enough memory to decode or render it; run the same command again to go on, "
                    "with fewer --workers or on a larger machine"
                )
            else:
                deaths += error.deaths
                if deaths < _DEATHS and not error.is_crash:
                    continue
                deaths = 0
                yield [failed(suspects.popleft(), error)]
            failures += 1
            if failures == _FAILURES:
                raise DispatchError(
                    f"{failures} workers died one after the other, the last at {file(batch[0])}: {error}"
                )
    finally:
        for future in pending:
            future.cancel()


def in_order(
    run: Callable[[Item], Result],
    items: Sequence[Item],
    executor: Executor,
    file: Callable[[Item], str | Location],
    failed: Callable[[Item, WorkerDied], Result],
    *,
    size: int,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[Result]:
    """What `run` makes of each item, in their order.

    Args:
        run: as `results` takes it, of one item.
        items: what there is to run.
        executor: as `results` takes it.
        file: as `results` takes it.
        failed: as `results` takes it.
        size: items a task.
        progress: called with (items done, items in all).

    Raises:
        DispatchError: as `results` has it, as everything else.
    """
    numbered = enumerate(items)
    batches = iter(lambda: list(islice(numbered, size)), [])
    found: list[Any] = [None] * len(items)
    done = 0
    for batch in results(
        partial(_run_each, run),
        batches,
        executor,
        lambda each: file(each[1]),
        lambda each, error: (each[0], failed(each[1], error)),
    ):
        for number, result in batch:
            found[number] = result
        done += len(batch)
        progress(done, len(items))
    return found


def _run_each(run: Callable[[Item], Result], batch: Iterable[tuple[int, Item]]) -> list[tuple[int, Result]]:
    return [(number, run(item)) for number, item in batch]
