"""A fresh process: what a person waits for who types a command, imports, weights and kernels included."""

import subprocess
import sys
from time import perf_counter

from ..errors import RunError

LONGEST_S = 600.0


def first_answer_s(folder: str) -> float:
    """Seconds in which a new process starts, loads the model, and answers a word with a token.

    Raises:
        RunError: it did not answer.
    """
    answer = ["--prompt", "hello", "--max-tokens", "1", "--temp", "0"]
    begin = perf_counter()
    try:
        subprocess.run(
            [sys.executable, "-m", "lazymlx.generate", "--model", folder, *answer],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=LONGEST_S,
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or [f"exit code {error.returncode}"]
        raise RunError(f"bench: a fresh process did not answer: {said[-1]}") from None
    except subprocess.TimeoutExpired:
        raise RunError(f"bench: a fresh process did not answer in {LONGEST_S:.0f} s") from None
    return perf_counter() - begin
