"""A headless Chromium, driven through chromedriver's own HTTP interface."""

import base64
import shutil
import subprocess
import time
from pathlib import Path

import requests

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
_WAIT = 60


class Browser:
    """One browser window. Use as a context manager."""

    def __init__(self, folder: Path):
        self._folder = folder

    def __enter__(self):
        log = self._folder / "chromedriver.log"
        self._driver = subprocess.Popen([DRIVER, "--port=0"], stdout=log.open("wb"))
        try:
            self._base = f"http://127.0.0.1:{self._port(log)}/session"
            arguments = ["--headless=new", "--no-sandbox", "--disable-gpu"]
            arguments += ["--disable-dev-shm-usage", f"--user-data-dir={self._folder / 'profile'}"]
            options = {"binary": CHROMIUM, "args": arguments}
            always = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            created = self._post("", {"capabilities": {"alwaysMatch": always}})
            self._base += f"/{created['sessionId']}"
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_):
        requests.delete(self._base, timeout=_WAIT)
        self._stop()

    def open(self, path: Path, *, width: int, dark: bool, printed: bool = False):
        """Shows a local page in a window of some width, and waits until it is drawn."""
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        media = {"media": "print" if printed else "screen", "features": [scheme]}
        self._devtools("Emulation.setDeviceMetricsOverride", screen)
        self._devtools("Emulation.setEmulatedMedia", media)
        self._post("/url", {"url": path.as_uri()})

    def run(self, script: str):
        """Runs JavaScript in the page and gives what it returns."""
        return self._post("/execute/sync", {"script": script, "args": []})

    def console(self) -> list[str]:
        """Gives what the browser has to say of the page: errors and warnings."""
        return [entry["message"] for entry in self._post("/se/log", {"type": "browser"})]

    def screenshot(self, path: Path):
        """Saves the whole page as PNG."""
        wanted = {"format": "png", "captureBeyondViewport": True}
        path.write_bytes(base64.b64decode(self._devtools("Page.captureScreenshot", wanted)["data"]))

    def _devtools(self, command: str, parameters: dict):
        return self._post("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _post(self, path: str, content: dict):
        answer = requests.post(self._base + path, json=content, timeout=_WAIT).json()["value"]
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer

    def _port(self, log: Path) -> int:
        for _ in range(_WAIT * 10):
            for line in log.read_text().splitlines():
                if "started successfully on port" in line:
                    return int(line.rstrip(".").rpartition(" ")[2])
            time.sleep(0.1)
        raise TimeoutError(log.read_text())

    def _stop(self):
        self._driver.terminate()
        self._driver.wait()
