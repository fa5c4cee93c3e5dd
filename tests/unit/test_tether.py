"""What a tether ends: all that its command has begun, however it did that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests.fixtures.norn import until

from norn.adapters.tether import descendants

BEGINS_IT_IN_A_THREAD = """
import subprocess, threading
threading.Thread(target=subprocess.run, args=(["sleep", "600"],)).start()
"""


def test_what_a_thread_of_the_command_has_begun_is_below_it_too() -> None:
    with subprocess.Popen([sys.executable, "-c", BEGINS_IT_IN_A_THREAD]) as program:
        try:
            (child,) = until(lambda: descendants(program.pid), "the thread's process")
            os.kill(child, signal.SIGKILL)  # and so the program ends
        finally:
            program.kill()
