"""A page's server as its user starts it, and a Chromium that looks at it. `from web_server import serving`."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass

QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip


@dataclass
class Served:
    process: subprocess.Popen
    lines: list[str]
    links: list[str]

    def stop(self, number=signal.SIGINT):
        """Its exit code and what else it wrote."""
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=30)
        return self.process.returncode, out


@contextmanager
def serving(*arguments, links=1):
    """`surefoot ...` until its links are there; ended at the end."""
    command = [sys.executable, "-m", "surefoot.cli", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ)
    )
    watch = threading.Timer(60, process.kill)
    watch.start()
    lines, found = [], []
    try:
        while len(found) < links:
            line = process.stdout.readline()
            assert line, f"the server ended before it was ready:\n{''.join(lines)}"
            lines.append(line)
            found += re.findall(r"http://\S+", line)
        yield Served(process, lines, found)
    finally:
        watch.cancel()
        if process.poll() is None:
            process.kill()
        process.communicate()


def chromium_path():
    """The browser, or a failure that says how to get one."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    assert found, (
        "tests of pages need a Chromium: `apt-get install -y --no-install-recommends chromium`, "
        "or set CHROMIUM to the path of one"
    )
    return found


@dataclass
class Watched:
    """What a browser did that it should not have."""

    requests: list[str]
    errors: list[str]


@contextmanager
def chromium(*more):
    """A headless Chromium without network of its own."""
    from playwright.sync_api import sync_playwright

    path = chromium_path()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*QUIET, *more])
        try:
            yield browser
        finally:
            browser.close()


def open_page(browser, link, **how):
    """A page in a browser profile of its own that came by a link, and what it does wrong from then on."""
    page = browser.new_context(**how).new_page()
    watched = Watched([], [])
    page.on("request", lambda request: watched.requests.append(request.url))
    page.on("pageerror", lambda error: watched.errors.append(str(error)))
    page.on(
        "console",
        lambda message: watched.errors.append(message.text) if message.type in ("error", "warning") else None,
    )
    page.on("dialog", lambda dialog: (watched.errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.goto(link)
    page.wait_for_url(re.compile(r"^[^?]*$"))
    return page, watched


CONTRAST = """
() => {
  const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const rgba = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (e) => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > 0) return c; } return [255, 255, 255]; };
  const worst = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility()) continue;
    const style = getComputedStyle(e), back = ground(e), front = rgba(style.color);
    const mixed = front.slice(0, 3).map((v, i) => v * style.opacity + back[i] * (1 - style.opacity));
    const [hi, lo] = [luminance(mixed), luminance(back)].sort((a, b) => b - a);
    worst.push([(hi + 0.05) / (lo + 0.05), e.tagName + "." + e.className + ": " + e.textContent.trim().slice(0, 30)]);
  }
  return worst.sort((a, b) => a[0] - b[0])[0];
}
"""
"""The text that stands out least from its ground, and its contrast (WCAG 2.2), by the colours that a browser shows."""
