"""Regions under colonel's own profiler: a window in each worker, by its guest's control socket."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from colonel import control
from colonel.errors import CaptureWarning
from colonel.processes import Captured
from colonel.profiling.vllm.workers import workers_of
from colonel.sessions import Session

# A first window loads and starts CUPTI; closing one waits for its records, and each of these may take a few seconds
# on a loaded machine.
OPEN_TIMEOUT = 15.0
CLOSE_TIMEOUT = 60.0


class ControlledWindows:
    """The windows of one region."""

    def __init__(self, llm: Any, session: Session, name: str | None) -> None:
        self.windows: dict[int, int] = {}
        self._workers: dict[int, Captured] = {}
        self._llm = llm
        self._session = session
        self._name = name
        self._lock = threading.Lock()
        self._is_open = False
        self._given_up = False

    def open(self) -> None:
        """Opens a window in all workers at once."""
        workers = workers_of(self._llm, self._session)
        self._workers = {worker.pid: worker for worker in workers}
        try:
            self._ask(workers, "open", self._start)
        except BaseException:
            # Ctrl-C: a block that is not entered is not left either.
            self.close()
            raise

    def close(self) -> None:
        """Closes what was opened, in all workers at once."""
        opened = [worker for pid, worker in self._workers.items() if pid in self.windows]
        self._ask(opened, "close", self._stop)

    async def open_async(self) -> None:
        """`open` beside a running event loop."""
        opening = asyncio.ensure_future(asyncio.to_thread(self._open_unless_given_up))
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread can't be stopped: it closes what it opens, however often this task is cancelled.
            opening.add_done_callback(lambda done: done.cancelled() or done.exception())
            with self._lock:
                self._given_up = True
                must_close = self._is_open
            if must_close:
                asyncio.get_running_loop().run_in_executor(None, self.close)
            raise

    def _open_unless_given_up(self) -> None:
        self.open()
        with self._lock:
            self._is_open = True
            must_close = self._given_up
        if must_close:
            self.close()

    async def close_async(self) -> None:
        """`close` beside a running event loop."""
        await asyncio.to_thread(self.close)

    def _start(self, worker: Captured) -> None:
        window = control.start(_socket(worker), self._name, OPEN_TIMEOUT).window
        if window is not None:
            self.windows[worker.pid] = window

    def _stop(self, worker: Captured) -> None:
        control.stop(_socket(worker), self.windows[worker.pid], CLOSE_TIMEOUT)

    def _ask(self, workers: list[Captured], what: str, ask: Callable[[Captured], None]) -> None:
        """Asks all at once; who did not do it is told by a warning."""
        if not workers:
            return
        threads = ThreadPoolExecutor(max_workers=len(workers), thread_name_prefix="colonel")
        asked = [(worker, threads.submit(ask, worker)) for worker in workers]
        try:
            threads.shutdown()
        except BaseException:
            # Ctrl-C while waiting: what is asked is asked, and its answer must be known.
            threads.shutdown()
            raise
        for worker, answer in asked:
            try:
                answer.result()
            except control.ControlError as error:
                ended = "" if worker.is_alive() else "it has ended: "
                warnings.warn(
                    f"pid {worker.pid} did not {what} its window: {ended}{error}", CaptureWarning, stacklevel=4
                )


def _socket(worker: Captured) -> str:
    if worker.control is None:
        reasons = "; ".join(worker.problems) or "`colonel show` says why"
        raise control.ControlError(f"its guest has no control socket: {reasons}")
    return worker.control
