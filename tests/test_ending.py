"""A process that ends while another thread computes ends well."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lazymlx.ending import Ending

ROOT = Path(__file__).parents[1]
WORKING = """
import sys, threading, time
sys.path.insert(0, {support!r})
from talking import DOCUMENT, session
s, begun = session(), threading.Event()
def work():
    while True:
        s.read(DOCUMENT)
        for response in s.ask("who keeps it?", 20):
            begun.set()
        s.undo(), s.undo()
threading.Thread(target=work, daemon=True).start()
begun.wait()
time.sleep({after_s})
print("over", flush=True)
"""


@pytest.mark.parametrize("after_s", [0.0, 0.013, 0.05])
def test_a_worker_that_is_alive_at_exit_does_not_abort_the_process(after_s: float) -> None:
    code = WORKING.format(support=str(ROOT / "tests" / "support"), after_s=after_s)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "over\n", "")


ENDED = """
import sys, threading
sys.path.insert(0, {support!r})
from talking import session
def work():
    for _ in session().ask("who keeps it?", 2): pass
threads = [threading.Thread(target=work) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@pytest.mark.parametrize("trial", range(3))  # it is a race, which was lost in every second one
def test_threads_that_have_just_ended_do_not_abort_the_process(trial: int) -> None:
    code = ENDED.format(support=str(ROOT / "tests" / "support"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_end_waits_for_what_is_under_way_and_lets_nothing_begin() -> None:
    ending, inside, go, steps = Ending(), threading.Event(), threading.Event(), list[str]()

    def work() -> None:
        with ending.waits():
            inside.set()
            go.wait()
            with ending.waits():  # a part of the same piece
                steps.append("done")
        with ending.waits():
            steps.append("never")

    threading.Thread(target=work, daemon=True).start()
    inside.wait()
    end = threading.Thread(target=ending.end)
    end.start()
    end.join(0.05)
    assert end.is_alive() and not steps
    go.set()
    end.join()
    assert steps == ["done"]
    with ending.waits():  # the main thread may still want something
        pass
    assert steps == ["done"]
