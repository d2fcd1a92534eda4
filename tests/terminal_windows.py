"""Commands in a terminal of their own, as a person sees them."""

import fcntl
import os
import pty
import struct
import sys
import termios
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(name: str, *words: str, cwd: Path, width: int = 80, seconds: list[float] | None = None) -> str:
    """All that a script writes to a terminal of this width; `seconds` gets when each part of it came."""
    begin = time.perf_counter()
    pid, end = pty.fork()
    if not pid:
        os.chdir(cwd)
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
        # not the process's own variables, to which a library adds the width of another terminal
        variables = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
        os.execve(sys.executable, [sys.executable, str(ROOT / name), *words], variables)
    text = b""
    try:
        while part := os.read(end, 4096):
            if seconds is not None:
                seconds.append(time.perf_counter() - begin)
            text += part
    except OSError:  # the terminal ends with the process
        pass
    os.waitpid(pid, 0)
    os.close(end)
    return text.decode().replace("\r\n", "\n")


def left(text: str) -> list[str]:
    """The lines that are there in the end, without what was written over."""
    return [line.rpartition("\r")[2].removeprefix("\x1b[K") for line in text.split("\n")]
