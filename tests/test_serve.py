"""``skd serve``: answers by hand, every limit, every malformed upload, who may ask, nothing stored, how it ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bombs import JPEG_2000S, TILED_TIFFS
from served import BOUNDARY, bomb, everything, multipart, png, serving
from subclass_kd import cli, extras
from subclass_kd.errors import UserError
from subclass_kd.serve import guard
from subclass_kd.serve.access import Access
from subclass_kd.serve.guard import HEADERS
from subclass_kd.serve.limits import MIB, Limits, size_in_words
from subclass_kd.serve.server import listen, make_server, read_token
from synthetic_bundle import add_int8, change_bundle, write_bundle

TOKEN = "0123456789abcdef-token"
SMALL = Limits(
    file_bytes=20_000, request_bytes=50_000, held_bytes=80_000, files=3, requests=2, connections=8,
    head_seconds=1, idle_seconds=1, upload_seconds=2, answer_seconds=1,
)  # fmt: skip
POST = f"POST /v1/predictions HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundles") / "mean")


@pytest.fixture(scope="module")
def served(folder):
    with serving(folder) as server:
        yield server


@pytest.fixture(scope="module")
def small(folder):
    with serving(folder, SMALL) as server:
        yield server


@pytest.fixture(scope="module")
def locked(folder):
    with serving(folder, token=TOKEN, loopback=False) as server:
        yield server


def check_failure(answer, status, words):
    given, headers, content = answer
    assert given == status, content
    assert set(content) == {"error", "predictions"}
    assert set(content["error"]) == {"where", "found", "expected", "remedy"}
    assert words in " ".join(content["error"].values())
    for name, value in HEADERS.items():
        assert headers[name] == value


def check_lives(served):
    assert served.ask("GET", "/healthz")[2] == {"status": "ok"}
    assert served.post(("a.png", png()))[0] == 200


def wait_for(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_answers_are_those_by_hand(served):
    """A mean of 51 / 255 is 0.2, below the threshold of 0.25; one of 255 is 1."""
    status, _, content = served.post(("dim.png", png(51)), ("bright.png", png(255)))
    assert status == 200
    assert (content["positive"], content["threshold"]) == ("bright", 0.25)
    assert len(content["model_sha256"]) == 64
    dim, bright = content["predictions"]
    assert (dim["name"], dim["decision"], dim["error"]) == ("dim.png", "dark", None)
    assert dim["confidence"] == pytest.approx(0.8, abs=1e-6)
    assert [row["name"] for row in dim["classes"]] == ["dark", "bright"]
    assert [row["probability"] for row in dim["classes"]] == pytest.approx([0.8, 0.2], abs=1e-6)
    assert [(row["name"], row["class"]) for row in dim["subclasses"]] == [
        ("night", "dark"), ("dusk", "bright"), ("day", "bright"),
    ]  # fmt: skip
    assert [row["probability"] for row in dim["subclasses"]] == pytest.approx([0.8, 0.05, 0.15], abs=1e-6)
    assert (bright["decision"], bright["confidence"]) == ("bright", pytest.approx(1, abs=1e-6))


def test_more_than_two_classes_have_no_threshold_and_may_have_no_subclasses(tmp_path):
    with serving(write_bundle(tmp_path / "b", classes=("dark", "bright", "none"))) as served:
        content = served.post(("a.png", png(150)))[2]
        model = served.ask("GET", "/v1/model")[2]
    assert content["threshold"] is None
    assert content["predictions"][0]["decision"] == "bright"
    assert content["predictions"][0]["subclasses"] == model["subclasses"] == []


def test_a_bad_image_among_good_ones_is_a_row_with_its_error(served):
    status, _, content = served.post(("good.png", png()), ("bad.png", png(3, 64)[:-30]), ("good.png", png(255)))
    assert status == 200
    assert [row["decision"] for row in content["predictions"]] == ["dark", None, "bright"]
    assert content["predictions"][1]["error"]["where"] == "bad.png"
    assert "cannot be decoded" in content["predictions"][1]["error"]["found"]
    status, _, content = served.post(("a.png", b"x"), ("b.png", b""))
    assert status == 422
    assert [row["error"]["where"] for row in content["predictions"]] == ["a.png", "b.png"]
    assert "None of the 2 files" in content["error"]["remedy"]


MALFORMED = {
    "truncated": (png(3, 64)[:-30], 422, "cannot be decoded"),
    "bomb": (bomb(12_000), 422, "12000 x 12000 pixels at most 25,000,000"),
    "bomb that Pillow refuses": (bomb(60_000), 422, "at most 25,000,000"),
    "tile of a TIFF": (TILED_TIFFS["one tile"], 422, "a tile of 12000 x 12000 pixels at most 25,000,000"),
    "parts of a JPEG 2000": (
        JPEG_2000S["precincts"],
        422,
        "parts in 1 layers parts that take no more room than 25,000,000",
    ),
    "wrong type": (b"%PDF-1.7 no image", 422, "does not know"),
    "script": (b"<script>alert(1)</script>", 422, "does not know"),
    "empty": (b"", 422, "an empty file (0 bytes)"),
    "tiny": (png(1, 4), 422, "at least 8 x 8"),
    "noise": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20, 422, "found"),
    "lone DICOM mark": (bytes(128) + b"DICM" + bytes(50), 422, ""),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_file_is_refused_and_the_server_lives(served, kind):
    content, status, words = MALFORMED[kind]
    answer = served.post(("a.png", content))
    if words == "found":
        assert answer[2]["error"]["found"]
        words = ""
    check_failure(answer, status, words)
    assert answer[2]["predictions"][0]["error"] == answer[2]["error"]
    check_lives(served)


BODIES = {
    "no type": ({}, b"x", 415, "a body of no stated type"),
    "JSON": ({"Content-Type": "application/json"}, b"{}", 415, "application/json"),
    "no boundary": ({"Content-Type": "multipart/form-data"}, multipart(("a", b"")), 400, "no boundary"),
    "long boundary": ({"Content-Type": f"multipart/form-data; boundary={'b' * 999}"}, b"", 400, "no multipart"),
    "empty": (None, b"", 400, "no end of the multipart body"),
    "no end": (None, multipart(("a.png", png()))[:-20], 400, "no end of the multipart body"),
    "another boundary": (None, b"--other\r\n\r\n", 400, "no multipart"),
    "no file": (None, f"--{BOUNDARY}--\r\n".encode(), 422, "no file"),
    "another field": (None, multipart(("a.png", png()), field="image"), 422, "a file in the field “image”"),
    "value": (
        None,
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="threshold"\r\n\r\n0.1\r\n--{BOUNDARY}--\r\n'.encode(),
        422,
        "a value in the field “threshold”",
    ),
    "no name": (None, f"--{BOUNDARY}\r\nX: y\r\n\r\n0\r\n--{BOUNDARY}--\r\n".encode(), 400, "a part without a name"),
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_malformed_body_is_refused_and_the_server_lives(served, kind):
    headers, body, status, words = BODIES[kind]
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"} if headers is None else headers
    check_failure(served.ask("POST", "/v1/predictions", body, **headers), status, words)
    check_lives(served)


def test_too_much_is_refused(small):
    check_failure(small.post(("big.png", bytes(20_001))), 413, "at most 20,000 bytes")
    check_failure(small.post(*[("a.png", bytes(19_000))] * 3), 413, "at most 50,000 bytes")
    check_failure(small.post(*[("a.png", png())] * 4), 422, "more than 3 files")
    assert small.post(*[("a.png", png())] * 3)[0] == 200
    chunks = (bytes(1000) for _ in range(80))  # of no stated length
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    first = [multipart(("a.png", b""))[: -len(BOUNDARY) - 8]]
    answer = small.ask("POST", "/v1/predictions", iter([*first, *chunks]), Content_Type=kind)
    check_failure(answer, 413, "at most 20,000 bytes")
    check_lives(small)


def test_who_waits_for_leave_is_told_before_anything_is_sent(small):
    answer = small.raw((POST + "Content-Length: 999999999\r\nExpect: 100-continue\r\n\r\n").encode())
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer


def test_a_slow_upload_is_cut(small):
    body = multipart(("a.png", png()))
    head = (POST + f"Content-Length: {len(body)}\r\n\r\n").encode()
    started = time.monotonic()
    stopped = small.raw(head + body[:50])
    assert 0.9 < time.monotonic() - started < 5
    assert stopped.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in stopped
    assert b'"expected":"a quicker one"' in stopped
    with socket.create_connection(("127.0.0.1", small.port), timeout=10) as connection:
        connection.sendall(head)
        started, at = time.monotonic(), 0
        connection.settimeout(0.05)
        while True:  # a byte now and then, never idle for long
            connection.sendall(body[at : at + 1])
            at += 1
            try:
                answer = connection.recv(65536)
                break
            except TimeoutError:
                assert time.monotonic() - started < 5
        assert answer.startswith(b"HTTP/1.1 408 ")
    check_lives(small)


def test_a_slow_head_is_hung_up_on(small):
    started = time.monotonic()
    assert small.raw(b"") == b""  # says nothing
    assert small.raw(b"GET / HT") == b""
    first = small.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea")  # the second of a connection
    assert first.count(b"HTTP/1.1 200") == 1
    assert time.monotonic() - started < 12
    check_lives(small)


def send_on(connection, content):
    """Send again and again; that blocks once all buffers are full, and raises once the connection is cut."""
    while True:
        connection.sendall(content)


def test_who_does_not_take_the_answers_is_hung_up_on(small):
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100
    connection = socket.create_connection(("127.0.0.1", small.port), timeout=10)
    with connection, pytest.raises(ConnectionError):
        send_on(connection, ask)
    wait_for(lambda: not small.server.server_state.connections)
    check_lives(small)


def test_too_many_connections_are_told_to_come_again(folder):
    with serving(folder, Limits(connections=2)) as served:
        idle = [socket.create_connection(("127.0.0.1", served.port), timeout=5) for _ in range(2)]
        wait_for(lambda: len(served.server.server_state.connections) == 2)
        answer = served.raw(b"")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1" in answer
        for connection in idle:
            connection.close()
        wait_for(lambda: not served.server.server_state.connections)
        check_lives(served)


def hold(served, count, size=50):
    """Begin requests and leave them unfinished until the returned sockets are closed."""
    begun = []
    body = multipart(("a.png", bytes(30_000)))
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", served.port), timeout=5)
        connection.sendall((POST + f"Content-Length: {len(body)}\r\n\r\n").encode() + body[:size])
        begun.append(connection)
    return begun


@pytest.mark.parametrize(
    ("limits", "count", "size", "words"),
    [
        (Limits(requests=2), 2, 50, "2 requests in work"),
        (Limits(held_bytes=40_000), 2, 20_000, "requests of 40,000 bytes in work"),
    ],
    ids=["requests", "bytes"],
)
def test_too_much_at_a_time_is_put_off(folder, limits, count, size, words):
    with serving(folder, limits) as served:
        begun = hold(served, count, size)
        time.sleep(0.3)
        answer = served.post(("a.png", png()))
        check_failure(answer, 503, words)
        assert answer[1]["Retry-After"] == "1"
        assert served.ask("GET", "/healthz")[0] == 200
        for connection in begun:
            connection.close()
        time.sleep(0.3)
        check_lives(served)
        figures = served.ask("GET", "/metrics")[2].decode()
        assert "skd_requests_inside 0.0" in figures
        assert "skd_bytes_held 0.0" in figures
        assert 'skd_requests_total{method="POST",path="/v1/predictions",status="499"} 2.0' in figures


def test_an_answer_that_takes_too_long_is_given_up_and_the_loop_stays_alive(folder, monkeypatch):
    with serving(folder, SMALL) as served:
        release = threading.Event()
        monkeypatch.setattr(served.student.bundle, "decode", lambda *_: release.wait(5))
        answers = []
        slow = threading.Thread(target=lambda: answers.append(served.post(("a.png", png()))))
        slow.start()
        time.sleep(0.1)
        started = time.monotonic()
        assert served.ask("GET", "/healthz")[0] == 200
        assert time.monotonic() - started < 0.9
        slow.join()
        check_failure(answers[0], 504, "no answer in 1 s")
        release.set()
        monkeypatch.undo()
        check_lives(served)


def test_a_fault_of_ours_is_told_without_what_was_sent(folder, monkeypatch, caplog):
    def fail(content, name, most_pixels):
        raise RuntimeError(f"about {name}")

    monkeypatch.setattr(guard.logger, "propagate", True)
    with serving(folder) as served:
        monkeypatch.setattr(served.student.bundle, "decode", fail)
        answer = served.post(("jane-doe.png", png()))
    check_failure(answer, 500, "a fault of its own")
    assert "jane-doe" not in json.dumps(answer[2]) + caplog.text
    assert "a fault of ours: RuntimeError" in caplog.text
    assert "in _one" in caplog.text


def test_the_openapi_document_holds_under_made_up_requests(served, tmp_path):
    """Schemathesis: no 5xx, every status and body as documented, what violates the document refused."""
    pytest.importorskip("schemathesis")
    run = "from schemathesis.cli import schemathesis; schemathesis()"
    # Left out: that whatever fits the document is accepted. A file of any bytes fits it, and need be no image.
    options = ["--exclude-checks", "positive_data_acceptance", "--max-examples", "25", "--seed", "1", "--no-color"]
    address = f"http://127.0.0.1:{served.port}/openapi.json"
    done = subprocess.run(
        [sys.executable, "-c", run, "run", address, *options],
        cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "Tested: 4" in done.stdout
    check_lives(served)


NAMES = [
    "<script>alert(1)</script>.png",
    '"><img src=x onerror=alert(1)>.png',
    "=HYPERLINK(0).png",
    "../../etc/passwd.png",
    "ü 図.png",
    "a\tb.png",
    "x" * 300 + ".png",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_text_and_go_no_further(served, name, monkeypatch, caplog):
    monkeypatch.setattr(guard.logger, "propagate", True)
    caplog.set_level("INFO", guard.logger.name)
    status, headers, content = served.post((name, png()))
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert content["predictions"][0]["name"] == name.replace('"', "%22")[:255]
    served.ask("GET", "/jane-doe.png?name=jane-doe")
    wait_for(lambda: "GET other 404" in caplog.text)  # after the answer
    assert "POST /v1/predictions 200" in caplog.text
    assert name not in caplog.text
    assert "jane-doe" not in caplog.text
    assert name not in served.ask("GET", "/metrics")[2].decode()


def test_odd_bytes_in_a_name_do_no_harm(served):
    assert served.post((b"\xff\x00\xfe.png", png()))[2]["predictions"][0]["name"] == "\ufffd\x00\ufffd.png"


def test_nothing_is_stored(folder, tmp_path, monkeypatch):
    import tempfile

    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(empty))
    monkeypatch.chdir(empty)

    def refuse(*_, **__):
        raise AssertionError("a temporary file")

    for name in ("SpooledTemporaryFile", "TemporaryFile", "NamedTemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, name, refuse)
    large = png(9, 1200, "RGB") + bytes(2 * MIB)  # larger than what other parsers keep in memory
    with serving(folder) as served:
        assert served.post(("a.png", large), ("b.png", b"bad"))[0] == 200
        assert served.post(("a.png", bytes(33 * MIB)))[0] == 413
    assert list(empty.iterdir()) == []


def test_every_answer_has_the_headers(served):
    for method, path, status in (
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("GET", "/page.js", 200),
        ("GET", "/style.css", 200),
        ("GET", "/icon.svg", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/metrics", 200),
        ("GET", "/v1/model", 200),
        ("GET", "/docs", 404),
        ("GET", "/../pyproject.toml", 404),
        ("GET", "/page.js/", 404),
        ("GET", "/v1/predictions", 405),
        ("DELETE", "/v1/model", 405),
    ):
        given, headers, content = served.ask(method, path)
        assert given == status, path
        for name, value in HEADERS.items():
            assert headers[name] == value, path
        assert "server" not in headers
        assert not any(name.startswith("access-control") for name in headers)
        if status >= 400:
            check_failure((given, headers, content), status, "/openapi.json")
        if status == 405:
            assert headers["allow"]
    assert "script-src" not in HEADERS["Content-Security-Policy"]
    page = served.ask("GET", "/")[2].decode()
    assert not re.search(r"<style|style=|<script>|onclick|https?://", page)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:1", 200),
        ("localhost", 200),
        ("LOCALHOST:80", 200),
        ("[::1]:8000", 200),
        ("127.8.9.1", 200),
        ("evil.example", 421),
        ("localhost.evil.example:80", 421),
        ("127.0.0.1.nip.io", 421),
        ("192.168.1.5", 421),
        ("", 421),
    ],
)
def test_on_loopback_only_names_of_this_computer_are_answered(served, host, status):
    answer = served.ask("GET", "/v1/model", Host=host)
    assert answer[0] == status
    if status != 200:
        check_failure(answer, 421, "a name of another computer")


def test_other_sites_pages_get_no_answer(served):
    for site in ("cross-site", "same-site"):
        check_failure(served.post(("a.png", png()), Sec_Fetch_Site=site), 403, "another site's page")
        assert served.ask("GET", "/", Sec_Fetch_Site=site)[0] == 200  # a link to the page
    assert served.post(("a.png", png()), Sec_Fetch_Site="same-origin")[0] == 200


def test_the_token_opens(locked):
    for path in ("/", "/page.js", "/healthz", "/openapi.json"):
        assert locked.ask("GET", path, Host="skd.example.org")[0] == 200
    for method, path in (("GET", "/v1/model"), ("GET", "/metrics"), ("POST", "/v1/predictions"), ("GET", "/gone")):
        answer = locked.ask(method, path)
        check_failure(answer, 401, "no token")
        assert answer[1]["WWW-Authenticate"] == "Bearer"
        wrong = ("Bearer 0123456789abcdef-tokeN", f"Basic {TOKEN}", "Bearer", f"Bearer {TOKEN}x", TOKEN, "Bearer ü")
        for given in wrong:
            check_failure(locked.ask(method, path, Authorization=given.encode("latin-1")), 401, "another token")
    for scheme in ("Bearer", "bearer"):
        assert locked.ask("GET", "/v1/model", Authorization=f"{scheme} {TOKEN}")[0] == 200
    assert locked.post(("a.png", png()), Authorization=f"Bearer {TOKEN}")[0] == 200
    described = locked.ask("GET", "/openapi.json")[2]
    assert described["paths"]["/v1/predictions"]["post"]["security"] == [{"token": []}]
    assert described["paths"]["/healthz"]["get"]["security"] == []


def test_the_model_is_described(folder, served):
    stated = json.loads((folder / "bundle.json").read_text())
    model = served.ask("GET", "/v1/model")[2]
    assert model["notice"] == "For research; not a medical device."
    assert (model["classes"], model["positive"], model["threshold"]) == (["dark", "bright"], "bright", 0.25)
    assert model["subclasses"][1] == {"name": "dusk", "class": "bright"}
    assert model["preprocessing"] == stated["preprocessing"]
    assert model["files"] == stated["files"]
    assert model["model_sha256"] == stated["files"]["model.onnx"]["sha256"]
    assert (model["card"], model["temperature"], model["arm"]) == (None, 1.0, None)
    assert model["limits"]["file_bytes"] == 32 * MIB
    assert (model["int8"], model["advice"]) == (False, None)


def test_what_is_advised_on_8_bits_is_told(popen, tmp_path):
    """At the start, before the address, and to programs; not where the student of 32 bits answers."""
    advice = "WARNING: on validation images F1 falls by MORE THAN 0.5 POINTS in 8 bits. Use the student in float32."
    folder = add_int8(write_bundle(tmp_path / "b"), advice)
    with serving(folder, int8=True) as eight, serving(folder) as exact:
        models = [served.ask("GET", "/v1/model")[2] for served in (eight, exact)]
    assert [(model["int8"], model["advice"]) for model in models] == [(True, advice), (False, None)]
    process, line = start(popen, folder, tmp_path, "--int8")
    assert line == f"skd: {advice}\n"
    assert " answers at http://127.0.0.1:" in process.stderr.readline()
    process, line = start(popen, folder, tmp_path)
    assert " answers at http://127.0.0.1:" in line
    change_bundle(folder, int8={"advice": 1})
    with pytest.raises(UserError, match="found a bundle that is not whole"):
        make_server(folder, Access(None, True), Limits(), int8=True)
    make_server(folder, Access(None, True), Limits())[1].close()


def test_figures_count_what_was_asked(folder):
    with serving(folder) as served:
        served.post(("a.png", png(255)), ("b.png", b"bad"))
        served.post(("b.png", b"bad"))
        status, headers, content = served.ask("GET", "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=")
    lines = content.decode().splitlines()
    for line in (
        'skd_images_total{decision="bright"} 1.0',
        'skd_images_total{decision="dark"} 0.0',
        "skd_image_errors_total 2.0",
        'skd_requests_total{method="POST",path="/v1/predictions",status="200"} 1.0',
        'skd_requests_total{method="POST",path="/v1/predictions",status="422"} 1.0',
        'skd_request_seconds_count{path="/v1/predictions"} 2.0',
        "skd_bytes_held 0.0",
    ):
        assert line in lines


def test_a_request_in_work_is_finished_when_the_server_is_stopped(folder, monkeypatch):
    with serving(folder) as served:
        decode, begun = served.student.bundle.decode, threading.Event()

        def slowly(content, name, most_pixels):
            begun.set()
            time.sleep(0.5)
            return decode(content, name, most_pixels)

        monkeypatch.setattr(served.student.bundle, "decode", slowly)
        answers = []
        asking = threading.Thread(target=lambda: answers.append(served.post(("a.png", png()))))
        asking.start()
        begun.wait()
        served.server.should_exit = True
        asking.join()
    assert answers[0][0] == 200


def start(popen, folder, cwd, *arguments, **environment):
    """Start the command and give the process and its first line."""
    process = popen(
        [sys.executable, "-m", "subclass_kd.cli", "serve", str(folder), "--port", "0", *arguments],
        cwd=cwd,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs have it ignored
    )
    return process, process.stderr.readline()


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_command_well(popen, folder, tmp_path, number):
    process, line = start(popen, folder, tmp_path)
    assert re.search(r"answers at http://127\.0\.0\.1:\d+/\. Ctrl-C stops\. For research; not a medical device\.", line)
    port = int(re.search(r":(\d+)/", line)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert b'{"status":"ok"}' in everything(connection)
    process.send_signal(number)
    out, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert out == ""
    assert re.fullmatch(r"skd: \d\d:\d\d:\d\d GET /healthz 200 \d+ ms\n", errors)
    assert list(tmp_path.iterdir()) == []


def test_the_first_answer_needs_no_torch(folder, tmp_path, python):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from served import png, serving\n"
        f"with serving(Path({str(folder)!r})) as served:\n"
        "    print(served.post(('a.png', png()))[0])\n"
        "print({'torch', 'scipy', 'sklearn', 'pandas', 'onnx', 'timm'} & set(sys.modules))"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = python("-c", code, cwd=tmp_path, PYTHONPATH=paths)
    assert done.stdout.splitlines() == ["200", "set()"], done.stderr


def refused(*arguments):
    with pytest.raises(UserError) as caught:
        cli.app(["serve", *map(str, arguments)], standalone_mode=False)
    return str(caught.value)


def test_what_is_wrong_at_the_start_is_one_message(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("SKD_TOKEN", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "found Address already in use; expected a free one. Give another --port." in refused(
            folder, "--port", port
        )
    assert "found no bundle.json; expected a bundle" in refused(tmp_path, "--port", 0)
    for host in ("0.0.0.0", "::"):
        message = refused(folder, "--port", 0, "--host", host)
        assert "found an address that others can reach, and no token; expected a token. Make one: python -c" in message
    assert "found an address that is not known" in refused(folder, "--port", 0, "--host", "no.such.host.invalid")
    assert "found no student of 8 bits" in refused(folder, "--port", 0, "--int8")
    (tmp_path / "short").write_text("short\n")
    assert "found 5 characters; expected a token of 16" in refused(folder, "--token-file", tmp_path / "short")
    assert "found No such file" in refused(folder, "--token-file", tmp_path / "gone")
    monkeypatch.setenv("SKD_TOKEN", "two words of a token")
    assert "variable SKD_TOKEN: found blanks" in refused(folder)
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "uvicorn" else 1)
    assert refused(folder) == (
        "skd serve: found no uvicorn in this Python; expected the packages of [serve]. "
        "Install them: pip install 'subclass-kd[serve]'."
    )


def test_a_bundle_that_states_nonsense_is_refused(tmp_path):
    folder = write_bundle(tmp_path / "b")
    change_bundle(folder, arm=["skd"])
    with pytest.raises(UserError, match="found a bundle that is not whole"):
        make_server(folder, Access(None, True), Limits())


def test_the_documented_limits_are_the_limits():
    page = (Path(__file__).parent.parent / "docs/serve.md").read_text("utf-8")
    table = dict(re.findall(r"^\| (an? [^|]+|[a-z ]+) \| (\d+[^|]*) \|", page, re.M))
    limits = Limits()
    assert table == {
        "a file": size_in_words(limits.file_bytes),
        "a request": size_in_words(limits.request_bytes),
        "files a request": str(limits.files),
        "pixels an image": f"{limits.pixels // 10**6} million",
        "all requests together": size_in_words(limits.held_bytes),
        "requests in work": str(limits.requests),
        "connections": str(limits.connections),
        "a request's first lines": f"{limits.head_seconds} s",
        "a pause in an upload": f"{limits.idle_seconds} s",
        "an upload": f"{limits.upload_seconds} s",
        "an answer": f"{limits.answer_seconds} s",
    }


def test_a_token_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("SKD_TOKEN", "another-token-of-16")
    assert read_token(tmp_path / "token") == TOKEN
    assert read_token(None) == "another-token-of-16"
    monkeypatch.setenv("SKD_TOKEN", "")
    assert read_token(None) is None
    listen("0.0.0.0", 0, TOKEN).close()


def test_an_interrupted_predict_does_not_speak_of_a_run(monkeypatch, capsys):
    def interrupted(_):
        signal.raise_signal(signal.SIGINT)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(cli, "app", interrupted)
    for arguments, kept in ((["predict", "bundle", "run"], False), (["run", "study.yaml"], True)):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(SystemExit) as caught:
                cli.main(arguments)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        assert caught.value.code == 130
        said = capsys.readouterr().err
        assert said.startswith("skd: Interrupted.")
        assert ("kept" in said) == kept
