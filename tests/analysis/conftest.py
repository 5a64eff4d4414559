"""A real browser for the tests of pages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Browser:
    """Chromium without a window, driven through pipes by its DevTools protocol."""

    def __init__(self, program: str, profile: Path) -> None:
        (theirs, self._to), (self._from, back) = os.pipe(), os.pipe()
        flags = ["--headless=shell", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        command = [program, *flags, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        # Chromium reads commands from 3 and writes answers to 4, whatever numbers we were given.
        shell = f'exec "$@" 3<&{theirs} 4>&{back}'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *command, "about:blank"],
            pass_fds=(theirs, back), stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs)
        os.close(back)
        self._answers, self._number = os.fdopen(self._from, "rb"), 0
        self._session: str | None = None
        self.events: list[dict] = []

        targets = self._call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        attached = self._call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def visit(self, path: Path, width: int, script: str) -> Any:
        """Open a page on a screen of a width, and return what a script evaluates to."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=800,
                   deviceScaleFactor=1, mobile=width < 600)  # fmt: skip
        self._call("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        return answer["result"]["value"]

    def problems(self) -> list[str]:
        """List errors of the page, and whatever it asked of the network."""
        wrong = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        addresses = (
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        )
        return [str(event) for event in self.events if event["method"] in wrong] + [
            address for address in addresses if not address.startswith(("file:", "data:"))
        ]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        self._answers.close()

    def _call(self, method: str, **params: Any) -> dict:
        self._number += 1
        message: dict = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                return answer["result"]
            self.events.append(answer)

    def _read(self) -> dict:
        content = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, "the browser has ended"
            content += byte
        return json.loads(content)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """Chromium, or the program that RSD2_CHROMIUM names; skips without one."""
    found: Callable[[str], str | None] = shutil.which
    program = os.environ.get("RSD2_CHROMIUM") or next(filter(None, map(found, _NAMES)), None)
    if program is None:
        pytest.skip("no Chromium; RSD2_CHROMIUM names one")
    running = Browser(program, tmp_path / "profile")
    yield running
    running.close()
