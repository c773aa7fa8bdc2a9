"""The page of ``skd serve`` in a real browser: what it shows, that names stay text, that nothing leaves the machine."""

import re
import shutil

import pytest

from served import png, serving
from synthetic_bundle import add_int8, write_bundle

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium was found; install Debian's chromium")
TOKEN = "0123456789abcdef-token"
DROP = """([name, content]) => {
  const files = new DataTransfer();
  files.items.add(new File([Uint8Array.from(content)], name));
  for (const kind of ["dragenter", "dragover", "drop"])
    document.querySelector("#drop").dispatchEvent(
      new DragEvent(kind, {dataTransfer: files, bubbles: true, cancelable: true}));
}"""


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as playwright:
        # A proxy that nobody is at: what asked for another machine would fail, and be noted.
        browser = playwright.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox"], proxy={"server": "127.0.0.1:9", "bypass": "127.0.0.1"}
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """Give a page, and afterwards look that it asked no other machine and that nothing was said on its console."""
    page = browser.new_page()
    page.set_default_timeout(10_000)
    page.asked, page.said = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    yield page
    assert page.said == []
    assert page.asked
    assert all(url.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:")) for url in page.asked)
    page.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundles") / "mean", classes=("dark", "<b>bright</b>"))


@pytest.fixture(scope="module")
def served(folder):
    (folder / "MODEL_CARD.md").write_text("# Model card\n<script>alert(1)</script>", "utf-8")
    with serving(folder) as served:
        yield served


def choose(page, *files):
    """Choose files, each (name, content), and wait until all are done."""
    payload = [{"name": name, "mimeType": "", "buffer": content} for name, content in files]
    page.set_input_files("#files", payload)
    api.expect(page.locator("#state")).to_have_text(re.compile(r"^\d"))


def test_an_image_that_is_dropped_gets_its_answer(page, served):
    page.goto(f"http://127.0.0.1:{served.port}/")
    page.wait_for_selector("#ask:visible")
    assert page.inner_text("h1") == "dark or <b>bright</b>?"
    assert "For research; not a medical device." in page.inner_text("header")
    assert page.inner_text("#rule") == "The decision is <b>bright</b> where its probability is at least 25.0 %."
    page.evaluate(DROP, ["chest.png", list(png(204))])
    answer = page.locator("#answers .answer")
    answer.locator(".decision").wait_for()
    assert answer.locator("h3").inner_text() == "chest.png"
    assert answer.locator(".decision").inner_text() == "<b>bright</b>"
    told = answer.locator(".confidence").inner_text()
    assert told == "Calibrated confidence 80.0 %, at or above the threshold of 25.0 %."
    assert answer.locator(".classes .number").all_inner_texts() == ["20.0 %", "80.0 %"]
    assert answer.locator(".subclasses .number").all_inner_texts() == ["20.0 %", "20.0 %", "60.0 %"]
    fills = answer.locator(".classes .fill").evaluate_all("found => found.map((each) => each.style.width)")
    assert fills == ["20%", "80%"]
    marks = answer.locator(".threshold:visible").evaluate_all("found => found.map((each) => each.style.left)")
    assert marks == ["25%"]
    answer.locator("img").wait_for()
    assert page.inner_text("#state") == "1 image done."
    page.click("#card summary")
    assert not page.is_visible("#advice")
    assert "temperature 1.000, fitted on validation images\n" in page.inner_text("#facts")
    assert page.inner_text("#card pre") == "# Model card\n<script>alert(1)</script>"


def test_8_bits_bring_their_advice_and_a_calibration_that_is_not_their_own(page, tmp_path):
    advice = "WARNING: <b>F1 falls</b>. Use the student in float32."
    with serving(add_int8(write_bundle(tmp_path / "b"), advice), int8=True) as served:
        page.goto(f"http://127.0.0.1:{served.port}/")
        page.wait_for_selector("#ask:visible")
        assert page.inner_text("#advice.caution") == f"Student of 8 bits. {advice}"
        choose(page, ("a.png", png(204)))
        told = page.inner_text("#answers .confidence")
        calibrated = "Confidence (calibrated with the student of 32 bits) 80.0 %"
        assert told == f"{calibrated}, at or above the threshold of 25.0 %."
        fitted = "temperature 1.000, fitted on validation images with the student of 32 bits"
        assert fitted in page.inner_text("#facts")


def test_what_is_no_image_gets_its_error_beside_the_others(page, served):
    page.goto(f"http://127.0.0.1:{served.port}/")
    page.wait_for_selector("#ask:visible")
    choose(page, ("notes.txt", b"no image"), ("a.png", png(0)), ("empty.png", b""))
    rows = page.locator("#answers .answer")
    assert rows.locator("h3").all_inner_texts() == ["notes.txt", "a.png", "empty.png"]
    assert "Found a file that Pillow does not know" in rows.nth(0).locator(".bad").inner_text()
    assert rows.nth(1).locator(".decision").inner_text() == "dark"
    told = rows.nth(1).locator(".confidence").inner_text()
    assert told == "Calibrated confidence 100.0 %; <b>bright</b> has 0.0 %, below the threshold of 25.0 %."
    assert "Found an empty file (0 bytes); expected an image." in rows.nth(2).locator(".bad").inner_text()
    assert page.inner_text("#state") == "3 images done, 2 of them without an answer."
    assert len(page.said) == 2  # Chromium itself notes on the console that an answer was 4xx
    assert all("status of 422" in line for line in page.said)
    page.said.clear()
    page.click("#clear")
    assert rows.count() == 0


NAMES = ["<script>document.title=1</script>.png", '"><img src=x onerror=document.title=1>.png', '=HYPERLINK("x").png']


def test_names_are_text(page, served):
    page.goto(f"http://127.0.0.1:{served.port}/")
    page.wait_for_selector("#ask:visible")
    choose(page, *((name, png()) for name in NAMES))
    assert page.locator("#answers h3").all_inner_texts() == NAMES
    assert page.locator("#answers script, #answers h3 img").count() == 0
    assert page.title() == "dark or <b>bright</b>?"


def test_too_large_a_file_is_not_sent(page, served):
    page.goto(f"http://127.0.0.1:{served.port}/")
    page.wait_for_selector("#ask:visible")
    page.evaluate(DROP.replace("[Uint8Array.from(content)]", "[new Uint8Array(content)]"), ["big.png", 33 * 2**20])
    api.expect(page.locator("#state")).to_have_text("1 image done, 1 of them without an answer.")
    assert page.inner_text("#answers .bad") == "Found 33 MiB; expected at most 32 MiB. Choose a smaller file."
    assert not any("predictions" in url for url in page.asked)


def test_the_token_is_asked_for_and_kept_in_memory(page, folder):
    with serving(folder, token=TOKEN) as served:
        page.goto(f"http://127.0.0.1:{served.port}/")
        page.wait_for_selector("#unlock:visible")
        assert not page.is_visible("#ask")
        assert page.evaluate("document.activeElement.id") == "token"
        page.keyboard.type("not the token at all")
        page.keyboard.press("Enter")
        page.wait_for_selector("#trouble:visible")
        assert page.inner_text("#trouble") == "This is not the token of this server."
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_selector("#ask:visible")
        assert page.evaluate("document.activeElement.id") == "files"
        choose(page, ("a.png", png()))
        assert page.inner_text("#answers .decision") == "dark"
        assert page.evaluate("[document.cookie, localStorage.length, sessionStorage.length]") == ["", 0, 0]
        assert TOKEN not in page.content()
        page.reload()
        page.wait_for_selector("#unlock:visible")
        assert len(page.said) == 3
        assert all("status of 401" in line for line in page.said)
        page.said.clear()


def test_the_page_is_for_keyboards_small_screens_and_the_dark(page, served):
    page.set_viewport_size({"width": 360, "height": 700})
    page.emulate_media(color_scheme="dark")
    page.goto(f"http://127.0.0.1:{served.port}/")
    page.wait_for_selector("#ask:visible")
    choose(page, ("a-name-" + "x" * 90 + ".png", png()))
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 29)"
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    reached = []
    for _ in range(7):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.localName"))
    assert reached[:3] == ["a", "files", "clear"]
    assert "summary" in reached
    unlabelled = "[...document.querySelectorAll('input')].filter((each) => each.labels.length === 0).length"
    assert page.evaluate(unlabelled) == 0
    assert page.get_attribute("#state", "aria-live") == "polite"
