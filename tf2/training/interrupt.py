# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""SIGTERM and SIGINT: the first asks a training to stop, so that it can save; a second one ends it at once."""

import contextlib
import os
import signal
import threading
import time

from absl import logging

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# A signal that comes again so soon is the same one: timeout(1) sends it to the process and then to its group.
ECHO_SECONDS = 0.1


class Interrupt:
    """Turns SIGTERM and SIGINT into a wish to stop; a context manager.

    The first signal is remembered and told in one line of the log: finish the step, save, and exit with `exit_code`.
    The second one, of either kind, ends the process at once with its exit code. A signal that the process was started
    to ignore, as background jobs of a shell are for SIGINT, stays ignored. Only a program's main thread may handle
    signals; in another one this does nothing.

    Python runs a handler only after the call that the main thread is in, and a step that compiles or a pipeline that
    hangs may not return for long. So a thread watches: the operating system's handler writes each signal to a pipe.
    """

    def __init__(self):
        """Changes nothing yet."""
        self.signal: int | None = None  # the first that came
        self._former: dict[int, object] = {}  # handlers by signal
        self._watcher: threading.Thread | None = None
        self._pipe = self._former_fd = -1

    @property
    def exit_code(self) -> int:
        """128 + signal, as shells have it: 143 for SIGTERM, 130 for SIGINT; 0 if none came."""
        return 128 + self.signal if self.signal else 0

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is not threading.main_thread():
            return self
        self._pipe, to_pipe = os.pipe()
        os.set_blocking(to_pipe, False)
        self._watcher = threading.Thread(target=self._watch, name="interrupt", daemon=True)
        self._watcher.start()
        self._former_fd = signal.set_wakeup_fd(to_pipe, warn_on_full_buffer=False)
        for number in SIGNALS:
            # None: a handler that is not Python's, which could not be put back.
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._former[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *error) -> None:
        if self._watcher is None:
            return
        for number, handler in self._former.items():
            signal.signal(number, handler)
        os.close(signal.set_wakeup_fd(self._former_fd))  # the watcher comes to the end of the pipe
        self._watcher.join(timeout=1)  # a forked child may still have the other end, then the thread stays

    def _remember(self, number: int, frame: object) -> None:
        if self.signal is None:
            self.signal = number

    def _watch(self) -> None:
        """Tells the first signal, and ends the process at the second."""
        number = self._next_signal()
        if number is not None:
            self._tell(number)
            number = self._next_signal()
        if number is not None:
            os._exit(128 + number)
        os.close(self._pipe)

    def _tell(self, number: int) -> None:
        time.sleep(ECHO_SECONDS)
        os.set_blocking(self._pipe, False)
        with contextlib.suppress(BlockingIOError):
            os.read(self._pipe, 4096)
        os.set_blocking(self._pipe, True)
        # Here and not in the handler, which may have interrupted a line of the log.
        name = signal.Signals(number).name
        logging.warning("%s: finishing the step and saving; send it again to end at once", name)

    def _next_signal(self) -> int | None:
        """Waits for one of the signals; None at the end of the pipe. Other handlers' signals come through it, too."""
        while data := os.read(self._pipe, 1):
            if data[0] in SIGNALS:
                return data[0]
        return None
