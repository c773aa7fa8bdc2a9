"""Photographs of the page of ``skd serve`` with images answered; scripts/screenshots.py calls this for a bundle."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

SIZES = {"phone": (390, 800), "laptop": (1280, 800)}


def photograph(bundle: Path, images: list[Path], folder: Path, browser: str, schemes: list[str]) -> list[str]:
    """Serve a bundle, choose images on its page, and write pictures; give what the page said on its console."""
    command = [sys.executable, "-m", "subclass_kd.cli", "serve", str(bundle), "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if name != "SKD_TOKEN"}
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)  # noqa: S603 - our own
    said: list[str] = []
    try:
        line = server.stderr.readline() if server.stderr else ""
        address = re.search(r"http://\S+/", line)
        if address is None:
            sys.exit(line)
        with sync_playwright() as playwright:
            # Nobody is at this proxy: the page gets no network.
            proxy = {"server": "127.0.0.1:9", "bypass": "127.0.0.1"}
            chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"], proxy=proxy)
            for name, (width, height) in SIZES.items():
                for scheme in schemes:
                    page = chromium.new_page(
                        viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=1
                    )
                    page.on("console", lambda message: said.append(message.text))
                    _ask(page, address[0], images)
                    file = folder / f"serve-{name}{'-dark' if scheme == 'dark' else ''}.png"
                    page.screenshot(path=file, full_page=True)
                    page.close()
                    print(file)
            chromium.close()
    finally:
        server.terminate()
        server.wait()
    return said


def _ask(page: Page, address: str, images: list[Path]) -> None:
    page.goto(address)
    page.wait_for_selector("#ask:visible")
    page.set_input_files("#files", images)
    expect(page.locator("#state")).to_have_text(re.compile(r"^\d"))
    page.wait_for_timeout(300)  # pictures are decoded
    page.evaluate("document.activeElement.blur()")
