"""Drops a file on the page in headless Chromium, by its DevTools protocol, and makes screenshots."""

import base64
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import websocket
from http1 import file, get, model

url, out = sys.argv[1], os.environ.get("SERVE_OUT", ".")
given = os.environ.get("SERVE_FILE")  # a picture or a sound to drop; else one is made up
told = model(url)


def original():
    """A picture with edges and gradients, or a sound that fades; larger than a sample and no multiple of it."""
    if told["modality"] == "sound":
        frames = told["sample_shape"][0] * 5 // 2
        time_axis = np.arange(frames) / told["sample_rate"]
        values = 20000 * np.sin(2 * np.pi * 440 * time_axis) * np.exp(-3 * time_axis * told["sample_rate"] / frames)
        return np.repeat(values.astype("<i2")[:, None], told["sample_shape"][1], 1)
    height, width, channels = told["sample_shape"][-3:]
    y, x = np.mgrid[0:height * 3 // 2 + 1, 0:width * 5 // 2 + 1]
    picture = np.stack([x * 255 // x.max(), y * 255 // y.max(), (x * 4 // width + y * 4 // height) % 2 * 200], -1)
    picture[y.max() // 3:y.max() * 2 // 3, x.max() // 3:x.max() // 2] = [240, 220, 40]
    picture = picture[..., :channels].astype("u1")
    return picture if told["modality"] == "picture" else np.repeat(picture[None], told["sample_shape"][0], 0)


class Browser:
    def __init__(self, width, height, dark):
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--hide-scrollbars",
                 "--remote-allow-origins=*", f"--user-data-dir={self.folder.name}", f"--window-size={width},{height}"]
        if dark:
            flags.append("--blink-settings=preferredColorScheme=0")
        self.process = subprocess.Popen(["chromium", *flags, "about:blank"], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        port_file = os.path.join(self.folder.name, "DevToolsActivePort")
        deadline = time.monotonic() + 60
        while not os.path.exists(port_file) or not open(port_file).read().count("\n"):
            assert time.monotonic() < deadline, "chromium does not start"
            time.sleep(0.1)
        port = open(port_file).read().split()[0]
        page = next(one for one in json.loads(get(f"http://127.0.0.1:{port}/json")) if one["type"] == "page")
        self.socket = websocket.create_connection(page["webSocketDebuggerUrl"], timeout=60)
        self.number, self.events = 0, []
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(domain + ".enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        if dark:
            self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])

    def call(self, method, **parameters):
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            told = json.loads(self.socket.recv())
            if told.get("id") == self.number:
                assert "error" not in told, told
                return told["result"]
            self.events.append(told)

    def value(self, script):
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, script):
        deadline = time.monotonic() + 60
        while not self.value(script):
            assert time.monotonic() < deadline, f"it did not come: {script}: {self.value('document.body.innerText')}"
            time.sleep(0.1)

    def shot(self, name):
        height = self.value("document.documentElement.scrollHeight")
        width = self.value("innerWidth")
        assert self.value("document.documentElement.scrollWidth") <= width, "the page is wider than the window"
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        path = os.path.join(out, name)
        with open(path, "wb") as target:
            target.write(base64.b64decode(data))
        print("screenshot", path)

    def close(self):
        self.socket.close()
        self.process.terminate()
        self.process.wait(30)


DROP = """(() => {
  const bytes = Uint8Array.from(atob("%s"), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "%s"));
  for (const type of ["dragover", "drop"])
    document.getElementById("drop").dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
})()"""


def visit(width, height, dark, name):
    browser = Browser(width, height, dark)
    browser.call("Page.navigate", url=url + "/")
    browser.wait("typeof model === 'object' && model !== null")
    kind = {"sound": "sound.wav", "film": "film.apng"}.get(told["modality"], "picture.png")
    dropped = pathlib.Path(given).read_bytes() if given else file(told, original())
    browser.value(DROP % (base64.b64encode(dropped).decode(), kind))
    browser.wait("document.getElementById('status').textContent.startsWith('Done')")
    if told["has_prior"]:
        browser.value("document.getElementById('go').click()")
        browser.wait("document.getElementById('sample-status').textContent.startsWith('Seed')")
        browser.wait("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    browser.shot(name)
    print(browser.value("document.getElementById('facts').textContent"))
    print(browser.value("document.getElementById('rows').innerText"))
    browser.value(DROP % (base64.b64encode(b"no file of any kind").decode(), "bad.png"))
    browser.wait("document.getElementById('status').classList.contains('bad')")
    print(browser.value("document.getElementById('status').textContent"))
    foreign = [event["params"]["request"]["url"] for event in browser.events
               if event.get("method") == "Network.requestWillBeSent"
               and not event["params"]["request"]["url"].startswith((url, "blob:", "data:"))]
    assert not foreign, foreign
    faults = [event["params"] for event in browser.events if event.get("method") == "Runtime.exceptionThrown"
              or event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error"
              and "status of 4" not in event["params"]["entry"]["text"]]
    assert not faults, faults
    browser.close()


visit(1100, 900, False, f"page-{told['modality']}.png")
visit(390, 800, True, f"page-{told['modality']}-phone.png")
