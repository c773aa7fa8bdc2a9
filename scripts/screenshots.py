"""Look at a page in headless Chromium: screenshots at phone and laptop size, light and dark, and a PDF as printed.

python scripts/screenshots.py PAGE.html FOLDER [--dark] [--chromium PATH]
python scripts/screenshots.py BUNDLE FOLDER IMAGE... [--dark] [--chromium PATH]

Of a bundle, it is the page of skd serve with the images answered, at phone and laptop size. The browser gets no
network: a proxy of ours refuses all. What a page logs on its console, or asks for, is told of, and then the exit code
is 1.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar, NoReturn
from urllib.parse import urlsplit

from PIL import Image, ImageChops

SIZES = {"phone": (390, 15000), "laptop": (1280, 10000)}  # higher than any page; what is empty is cut off
LOOKS = {"": (), "-dark": ("--force-dark-mode", "--blink-settings=preferredColorScheme=0")}
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--proxy-bypass-list=<-loopback>",
    "--enable-logging=stderr", "--v=0",
)  # fmt: skip


class Refusing(BaseHTTPRequestHandler):
    """Notes and refuses what a browser asks for, but for what Chromium asks its maker by itself."""

    asked: ClassVar[list[str]] = []

    def refuse(self) -> None:
        host = (urlsplit(self.path).hostname or "") if "://" in self.path else self.path.split(":")[0]
        if not host.endswith((".google.com", ".googleapis.com", ".gvt1.com")):
            self.asked.append(f"asked for {self.path}")
        self.send_error(502)

    do_GET = do_POST = do_HEAD = do_CONNECT = refuse  # noqa: N815 - names that http.server calls

    def log_message(self, *_: object) -> None:
        pass


def chromium(browser: str, page: Path, *arguments: str) -> list[str]:
    """Show a page, and give what it logged on its console and asked for."""
    Refusing.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as proxy, tempfile.TemporaryDirectory() as profile:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        through = f"--proxy-server=127.0.0.1:{proxy.server_port}"
        done = subprocess.run(  # noqa: S603 - the browser that was asked for
            [browser, *FLAGS, through, f"--user-data-dir={profile}", *arguments, page.resolve().as_uri()],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        proxy.shutdown()
    return [*re.findall(r"^.*CONSOLE[^\]]*\] (.*)$", done.stderr, re.M), *Refusing.asked]


def cut(file: Path) -> None:
    """Cut off what stands empty below a page."""
    with Image.open(file) as shot:
        picture = shot.convert("RGB")
    page = picture.crop((0, 0, picture.width, picture.height - 200))  # the window's last rows are not the page's
    ground = Image.new("RGB", page.size, page.getpixel((0, page.height - 1)))
    box = ImageChops.difference(page, ground).getbbox()
    height = min(page.height, (box[3] if box else 0) + 20)
    page = page.crop((0, 0, page.width, height))
    few = page.quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)  # half the size
    few.save(file, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("images", type=Path, nargs="*", help="to be answered, where PAGE is a bundle")
    parser.add_argument("--chromium", default=next(filter(None, map(shutil.which, NAMES)), None))
    parser.add_argument("--dark", action="store_true", help="dark as well as light")
    given = parser.parse_args()
    if given.chromium is None:
        sys.exit("No Chromium was found. Install Debian's chromium, or give --chromium.")
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.page.is_dir():
        from screenshots_served import photograph

        schemes = ["light", "dark"] if given.dark else ["light"]
        leave(photograph(given.page, given.images, given.folder, given.chromium, schemes))
    logged = []
    for name, (width, height) in SIZES.items():
        for look, more in LOOKS.items() if given.dark else [("", ())]:
            file = given.folder / f"{given.page.stem}-{name}{look}.png"
            window = f"--window-size={width},{height}"
            logged += chromium(given.chromium, given.page, window, f"--screenshot={file.resolve()}", *more)
            cut(file)
            print(file)
    file = given.folder / f"{given.page.stem}-print.pdf"
    logged += chromium(given.chromium, given.page, f"--print-to-pdf={file.resolve()}", "--no-pdf-header-footer")
    print(file)
    leave(logged)


def leave(logged: list[str]) -> NoReturn:
    """End, with what a page logged."""
    for line in dict.fromkeys(logged):
        print(line, file=sys.stderr)
    sys.exit(bool(logged))


if __name__ == "__main__":
    main()
