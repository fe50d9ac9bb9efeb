"""How a search ends if its Ray has died or a signal arrives: soon, with one message, in order.

All that a search needs to continue is in its run folder, so it may end at any moment. Usually the
main thread ends it, at the next call of Ray that fails or the next look at Ray's health. But a call
may block for a minute or for good, and a signal handler of Python has to wait for it. So a thread
watches Ray and the signals, and ends the process if the main thread does not.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from lkd_tune.cluster.health import RayHealth, RayLostError, ray_problem
from lkd_tune.cluster.processes import kill_marked
from lkd_tune.cluster.ray import connected
from lkd_tune.config.errors import SearchEndedError
from lkd_tune.records.run import RunFolder
from lkd_tune.tuning.stop import StopRequest

_LOOK_EVERY_S = 0.1
# What the main thread has, after Ray has died, to write what it knows and to end the search.
_GRACE_S = 6.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_active: Guard | None = None


@contextlib.contextmanager
def guarded(run: RunFolder, resume: str | None = None) -> Iterator[Guard]:
    """Guards a search. Inside another guard, it gives that one.

    Args:
        run: The search's run.
        resume: How to resume, a sentence; default: the command `search --resume`.

    Raises:
        SearchEndedError: If Ray dies, or a signal arrives when there is nothing to return yet.
    """
    global _active
    if _active is not None:
        _active.raise_if_interrupted()
        yield _active
        return
    _active = Guard(lambda: _how_to_resume(run, resume))
    try:
        with _active:
            yield _active
    finally:
        _active = None


def _how_to_resume(run: RunFolder, resume: str | None) -> str:
    if not run.manifest.exists() and resume is None:
        return "The search had not begun: start it again"
    return resume or f"Resume with: {run.resume_command}"


class Guard:
    """Watches Ray and signals during a search; a context. See `guarded`."""

    def __init__(self, how_to_resume: Callable[[], str]):
        self._how_to_resume = how_to_resume
        self._stop: StopRequest | None = None
        self._health: RayHealth | None = None
        self._ray_lost: str | None = None
        self._interrupted = False
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="guard")
        self._exits = contextlib.ExitStack()
        self._stderr = 2

    def __enter__(self) -> Guard:
        self._stderr = os.dup(2)
        self._exits.callback(self._restore_stderr)
        self._signals = self._exits.enter_context(_signals_noted(self._handle))
        self._thread.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._over.set()
        self._thread.join()
        self._read_signals()
        self._exits.close()
        if self._ray_lost is not None or isinstance(error, RayLostError):
            raise SearchEndedError(self._message(error), self._exit_code) from None
        if self._interrupted and isinstance(error, KeyboardInterrupt | SystemExit):
            raise SearchEndedError(self._message(), self._exit_code) from None

    @contextlib.contextmanager
    def connected(self, address: str | None) -> Iterator[bool]:
        """As `cluster.ray.connected`, guarded; inside another such context, it does no more."""
        if self._health is not None:
            with connected(address) as started_here:
                yield started_here
            return
        health = self._health = RayHealth()
        try:
            with connected(address) as started_here:
                self._signals.handle()  # Ray has replaced a handler
                self.raise_if_interrupted()
                health.started()
                try:
                    yield started_here
                except BaseException:
                    self._lose_ray(health.settled_problem())
                    raise
                finally:
                    health.end()
        except BaseException:
            self._lose_ray(None if health.ended else health.problem())  # it died as it started
            raise
        finally:
            health.end()
            self._health = None

    @contextlib.contextmanager
    def stopping(self, stop: StopRequest) -> Iterator[None]:
        """Makes a signal a request to stop, as long as this context lasts."""
        self._stop = stop
        try:
            self.raise_if_interrupted()
            yield
        finally:
            self._stop = None

    def raise_if_interrupted(self) -> None:
        """Raises KeyboardInterrupt if a signal has arrived that no request to stop has taken."""
        self._read_signals()
        if self._interrupted:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._interrupted = True
        if self._stop is None:
            raise KeyboardInterrupt
        self._stop.interrupt()

    def _read_signals(self) -> None:
        if self._signals.arrived():
            self._interrupted = True
            if self._stop is not None:
                self._stop.interrupt()

    def _watch(self) -> None:
        while not self._over.is_set():
            select.select([self._signals.reader], [], [], _LOOK_EVERY_S)
            self._read_signals()
            self._lose_ray(ray_problem())
            if self._ray_lost is not None:
                if not self._over.wait(_GRACE_S):
                    self._end_process()
                return

    def _lose_ray(self, problem: str | None) -> None:
        """Ends what is left of a Ray of which something has died: calls may wait for it."""
        with self._lock:
            if problem is None or self._ray_lost is not None:
                return
            self._ray_lost = problem
            # What Ray has to say of it would come before the message and say less.
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            kill_marked()

    def _restore_stderr(self) -> None:
        os.dup2(self._stderr, 2)
        os.close(self._stderr)

    def _end_process(self) -> None:
        """Ends this process, whose main thread is blocked in a call of Ray."""
        from rich.console import Console

        self._read_signals()
        with contextlib.suppress(OSError):  # a terminal that is gone
            Console().show_cursor(True)  # a live table has hidden it
            os.write(self._stderr, f"lkd-tune: {self._message()}\n".encode())
        kill_marked()
        os._exit(self._exit_code)

    @property
    def _exit_code(self) -> int:
        return 130 if self._interrupted else 1

    def _message(self, error: BaseException | None = None) -> str:
        what = "interrupted" if self._interrupted else self._ray_lost or str(error)
        return f"{what}. Nothing is lost. {self._how_to_resume()}"


class _Signals:
    """Signals as they arrive, even if the main thread can't handle them."""

    def __init__(self, reader: int, handle: Callable[[], None]):
        self.reader, self.handle = reader, handle

    def arrived(self) -> bool:
        """Returns whether a signal has arrived since the last call."""
        with contextlib.suppress(BlockingIOError):
            return bool({*os.read(self.reader, 256)} & {*_SIGNALS})
        return False


@contextlib.contextmanager
def _signals_noted(handle: Callable[[int, FrameType | None], None]) -> Iterator[_Signals]:
    """Handles the first of `_SIGNALS`; the second acts as usual. Gives those that have arrived.

    SIGHUP stays ignored in a process that was started with nohup. SIGINT does not: shells start
    background processes with it ignored, and who sends it to one wants it to end. Only the main
    thread can handle signals; in other threads this gives none.
    """
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    if threading.current_thread() is not threading.main_thread():
        yield _Signals(reader, lambda: None)
        os.close(reader)
        os.close(writer)
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    if before[signal.SIGHUP] == signal.SIG_IGN:
        del before[signal.SIGHUP]
    terminals = [number for number in (1, 2) if os.isatty(number)]

    def restore() -> None:
        for number, old in before.items():
            signal.signal(number, old)

    def first(number: int, frame: FrameType | None) -> None:
        restore()
        if number == signal.SIGHUP and terminals:  # it is gone, and writing to it would fail
            with open(os.devnull, "w") as nowhere:
                for terminal in terminals:
                    os.dup2(nowhere.fileno(), terminal)
        handle(number, frame)

    def install() -> None:
        for number in before:
            signal.signal(number, first)

    install()
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield _Signals(reader, install)
    finally:
        signal.set_wakeup_fd(wakeup)
        restore()
        os.close(reader)
        os.close(writer)
