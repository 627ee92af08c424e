"""Chromium without a window, driven through its own protocol over a pipe: no driver, nothing to download."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    def __init__(self, home: Path) -> None:
        ours, theirs = os.pipe(), os.pipe()  # commands, answers
        command = (
            f"exec {CHROMIUM} --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run "
            f"--user-data-dir={home} --remote-debugging-pipe --disable-background-networking --mute-audio "
            f"--use-fake-ui-for-media-stream --use-fake-device-for-media-stream "
            f"about:blank 3<&{ours[0]} 4>&{theirs[1]}"
        )
        self.process = subprocess.Popen(
            ["bash", "-c", command], pass_fds=(ours[0], theirs[1]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(ours[0])
        os.close(theirs[1])
        self._to, self._from, self._rest, self._number = ours[1], os.fdopen(theirs[0], "rb", 0), b"", 0
        self.events: list[dict[str, Any]] = []

    def send(self, method: str, session: str | None = None, **params: Any) -> Any:
        self._number += 1
        message = {
            "id": self._number,
            "method": method,
            "params": params,
            **({"sessionId": session} if session else {}),
        }
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = self._from.read(65536)
            if not more:
                raise RuntimeError("Chromium has gone")
            self._rest += more
        one, self._rest = self._rest.split(b"\0", 1)
        return json.loads(one)

    def page(self, url: str, width: int = 1280, height: int = 900, dark: bool = False) -> Page:
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        page.send("Runtime.enable")
        page.send("Log.enable")
        page.send("Network.enable")
        page.send("Page.enable")
        page.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 700
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.send(
            "Emulation.setEmulatedMedia", features=[scheme, {"name": "prefers-reduced-motion", "value": "reduce"}]
        )
        page.send("Page.navigate", url=url)
        return page

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._to)
        self._from.close()


class Page:
    def __init__(self, browser: Browser, session: str) -> None:
        self.browser, self.session = browser, session

    def send(self, method: str, **params: Any) -> Any:
        return self.browser.send(method, self.session, **params)

    def __call__(self, code: str) -> Any:
        """The value of an expression of JavaScript; promises are waited for."""
        made = self.send("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in made:
            raise RuntimeError(f"{code}: {made['exceptionDetails']}")
        return made["result"].get("value")

    def until(self, code: str, seconds: float = 60) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(RuntimeError):  # while a page is being opened there is none
                if value := self(code):
                    return value
            time.sleep(0.05)
        raise AssertionError(f"never true: {code}")

    def drop(self, files: list[tuple[str, bytes]], where: str = "#drop", kind: str = "drop") -> None:
        """Files dropped from a file manager."""
        given = json.dumps([[name, base64.b64encode(data).decode()] for name, data in files])
        self(
            f"""(() => {{ const t = new DataTransfer();
            for (const [name, text] of {given}) {{
              const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
              t.items.add(new File([bytes], name, {{ type: "image/png" }}));
            }}
            document.querySelector({json.dumps(where)}).dispatchEvent(
              new DragEvent("{kind}", {{ dataTransfer: t, bubbles: true, cancelable: true }})); }})()"""
        )

    def press(self, key: str, code: str = "", number: int = 0, text: str = "") -> None:
        more = {"key": key, "code": code or key, "windowsVirtualKeyCode": number}
        self.send("Input.dispatchKeyEvent", type="keyDown", **more, **({"text": text} if text else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", **more)

    def screenshot(self, path: Path, whole: bool = False) -> None:
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}} if whole else {}
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **clip)["data"]
        path.write_bytes(base64.b64decode(data))

    @property
    def troubles(self) -> list[str]:
        """Errors that the console shows, and exceptions."""
        found = []
        for event in self.browser.events:
            if event.get("sessionId") != self.session:
                continue
            if event["method"] == "Runtime.exceptionThrown":
                found.append(json.dumps(event["params"]["exceptionDetails"])[:500])
            if event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
                found.append(event["params"]["entry"]["text"] + " " + event["params"]["entry"].get("url", ""))
        return found

    @property
    def asked(self) -> list[str]:
        """Addresses of all requests."""
        return [
            event["params"]["request"]["url"]
            for event in self.browser.events
            if event.get("sessionId") == self.session and event["method"] == "Network.requestWillBeSent"
        ]


@contextlib.contextmanager
def listening(app: Any) -> Iterator[str]:
    """The address at which it answers."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, args=([made],), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{made.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
