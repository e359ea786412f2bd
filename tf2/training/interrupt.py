# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""SIGTERM and SIGINT: the first signal lets training save and stop, a second one ends the process at once."""

import os
import signal
import threading
import time

SIGNALS = (signal.SIGTERM, signal.SIGINT)
ECHO_SECONDS = 0.1  # a signal repeated this soon is the same one: timeout(1) sends it to the process and to its group


class Stopped(Exception):
    """A training ended early; the same command resumes it from the last checkpoint."""

    def __init__(self, message: str, exit_code: int):
        """Stores the exit code of the process."""
        super().__init__(message)
        self.exit_code = exit_code


class Interrupt:
    """Context manager that records the first SIGTERM or SIGINT instead of ending the process.

    The caller polls `signal`, finishes the step, saves, and exits with `exit_code`. A second signal of either kind ends
    the process at once. Signals that the process was started to ignore, as SIGINT in background jobs of a shell, stay
    ignored. In threads other than the main one, which cannot handle signals, this does nothing.

    Python runs signal handlers between bytecodes: a signal that arrives during a long call into TensorFlow, such as a
    compilation, takes effect after it.
    """

    def __init__(self):
        self.signal: int | None = None  # the first signal received
        self._received = 0.0  # time.monotonic() of it
        self._previous: dict[int, object] = {}  # handlers by signal

    @property
    def exit_code(self) -> int:
        """128 + signal as in shells, 143 for SIGTERM and 130 for SIGINT; 0 without a signal."""
        return 128 + self.signal if self.signal else 0

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                # None: a handler that was not installed by Python and could not be restored.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: object) -> None:
        if self.signal is None:
            self.signal, self._received = number, time.monotonic()
            name = signal.Signals(number).name
            # Not by logging: the handler may have interrupted a line that is being logged.
            os.write(2, f"{name}: finishing the step and saving; send it again to exit immediately\n".encode())
        elif time.monotonic() - self._received > ECHO_SECONDS:
            os._exit(128 + number)
