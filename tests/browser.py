"""Headless Chromium, driven through a pipe by the DevTools protocol.

`python -m tests.browser page.html picture.png --width 1400` takes a picture of a page.
"""

import argparse
import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One tab. `asked` keeps the URLs that the page requests, `said` its console messages."""

    def __init__(self, width: int = 1400, height: int = 900) -> None:
        self._profile = tempfile.TemporaryDirectory()
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]

        command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        command += ["--remote-debugging-pipe", f"--user-data-dir={self._profile.name}"]
        self._process = subprocess.Popen(
            [*command, "about:blank"],
            pass_fds=(3, 4),
            preexec_fn=lambda: [os.dup2(end, number) for number, end in enumerate(ends, 3)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (theirs_in, theirs_out, *ends):
            os.close(end)
        self._in, self._out = os.fdopen(ours_in, "rb"), os.fdopen(ours_out, "wb")
        self._rest, self._number, self._session = b"", 0, None
        self.asked: list[str] = []
        self.said: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.resize(width, height)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_) -> None:
        self._process.terminate()
        self._process.wait()
        self._in.close()
        self._out.close()
        shutil.rmtree(self._profile.name, ignore_errors=True)

    def call(self, method: str, **params) -> dict:
        """Result of one command of the protocol. Raises RuntimeError where it fails."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while True:
            while b"\0" not in self._rest:
                more = os.read(self._in.fileno(), 2**20)
                if not more:
                    raise RuntimeError("Chromium is gone")
                self._rest += more
            line, _, self._rest = self._rest.partition(b"\0")
            message = json.loads(line)
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            self._note(message)

    def _note(self, message: dict) -> None:
        event, params = message.get("method"), message.get("params", {})
        if event == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.said.append(params["exceptionDetails"].get("exception", {}).get("description", ""))
        elif event == "Runtime.consoleAPICalled":
            self.said.append(str([each.get("value") for each in params["args"]]))
        elif event == "Log.entryAdded":
            self.said.append(params["entry"]["text"])

    def resize(self, width: int, height: int, mobile: bool = False) -> None:
        metrics = dict(width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.call("Emulation.setDeviceMetricsOverride", **metrics)

    def open(self, page: Path) -> None:
        self.call("Page.navigate", url=page.resolve().as_uri())

    def run(self, script: str) -> object:
        """The value of a JavaScript expression."""
        found = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"].get("description", script))
        return found["result"].get("value")

    def wait_for(self, script: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < deadline, f"{script}: not within {seconds} s; {self.said}"
            time.sleep(0.05)

    def drag(self, places: list[tuple[float, float]]) -> None:
        kinds = ["mousePressed", *["mouseMoved"] * (len(places) - 1), "mouseReleased"]
        for kind, (x, y) in zip(kinds, [*places, places[-1]], strict=True):
            button = dict(button="left", buttons=1, clickCount=1)
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def touch(self, places: list[tuple[float, float]]) -> None:
        for number, (x, y) in enumerate(places):
            kind = "touchMove" if number else "touchStart"
            self.call("Input.dispatchTouchEvent", type=kind, touchPoints=[dict(x=x, y=y)])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key)

    def picture(self, path: Path) -> None:
        found = self.call("Page.captureScreenshot")
        path.write_bytes(base64.b64decode(found["data"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("shot", type=Path)
    parser.add_argument("--width", type=int, default=1400)
    arguments = parser.parse_args()
    with Browser(arguments.width) as browser:
        browser.open(arguments.page)
        browser.wait_for("document.body?.dataset.ready && !document.body.dataset.busy")
        browser.resize(arguments.width, browser.run("document.documentElement.scrollHeight"))
        time.sleep(0.5)
        browser.picture(arguments.shot)


if __name__ == "__main__":
    main()
