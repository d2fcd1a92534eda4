"""A page in a headless Chromium, through its DevTools protocol: what a reader sees, types and clicks."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# a browser with pipes for --remote-debugging-pipe: it reads from 3 and writes to 4
PIPED = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Page:
    """An open page; commands go to the browser through one pipe and answers come back through another."""

    def __init__(self, to: int, answers: int) -> None:
        self._to, self._answers, self._number, self._rest = to, answers, 0, b""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def _ask(self, method: str, session: str = "", **parameters) -> dict:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                read = os.read(self._answers, 1 << 20)
                assert read, "the browser ended"
                self._rest += read
            answer, _, self._rest = self._rest.partition(b"\0")
            found = json.loads(answer)
            if found.get("id") == self._number:
                assert "error" not in found, found
                return found["result"]

    def ask(self, method: str, **parameters) -> dict:
        """A command of the protocol, of this page."""
        return self._ask(method, self._session, **parameters)

    def open(self, path: Path, width: int = 1280, height: int = 800, dark: bool = False, place: str = "") -> None:
        """Opens a file in a window of this size, and waits until it has been read."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", features=scheme)
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.ask("Page.navigate", url="about:blank")
        self.ask("Page.navigate", url=f"file://{path}{place}")
        while not self.run("location.protocol === 'file:' && document.readyState === 'complete'"):
            time.sleep(0.02)

    def run(self, script: str):
        """The value of an expression; of a promise what it promises."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def type(self, words: str) -> None:
        """Types into what has the focus."""
        self.ask("Input.insertText", text=words)

    def picture(self, path: Path) -> None:
        """What the window shows, as PNG."""
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot")["data"]))


@contextlib.contextmanager
def page(profile: Path) -> Generator[Page]:
    """A browser with an empty page; it ends with the block."""
    assert BROWSER
    theirs, to = os.pipe()
    answers, back = os.pipe()
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--remote-debugging-pipe"]
    process = subprocess.Popen(
        [sys.executable, "-c", PIPED, str(theirs), str(back), BROWSER, *words],
        pass_fds=(theirs, back),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    os.close(back)
    try:
        yield Page(to, answers)
    finally:
        process.terminate()
        process.wait(30)
        os.close(to)
        os.close(answers)
