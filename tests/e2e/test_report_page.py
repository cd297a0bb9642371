"""Report and reader in a headless browser: no network requests or errors, figures drawn, filters, keys, phones, print."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import dvc

FIGURES = 11
PHONE = """<body style="margin:0"><iframe src="{page}" width="390" height="844" style="border:0"></iframe>
<script>addEventListener("load", () => {{ document.title = frames[0].document.documentElement.scrollWidth }})</script>"""
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = [f"--{name}" for name in ("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-sync", "disable-quic")]
QUIET += ["--disable-background-networking", "--allow-file-access-from-files", "--host-resolver-rules=MAP * ~NOTFOUND"]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium found")]


@pytest.fixture(scope="module")
def page(project) -> Path:
    dvc(project, "repro")
    return project / "data/report/index.html"


def browse(page: Path, profile: Path, *options: str) -> subprocess.CompletedProcess:
    command = [str(BROWSER), *QUIET, f"--user-data-dir={profile}", "--enable-logging=stderr", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_page_makes_no_requests_and_draws_every_figure(page, tmp_path):
    seen = browse(page, tmp_path, "--dump-dom")
    assert "CONSOLE" not in seen.stderr, seen.stderr
    dom = seen.stdout
    assert len(re.findall(r"<figure", dom)) == len(re.findall(r"<svg", dom)) == FIGURES
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#|traces\.html)""", dom) and "url(http" not in dom
    assert all(caption.strip() for caption in re.findall(r"<figcaption>(.*?)</figcaption>", dom, re.DOTALL))


def test_script_errors_are_detected(page, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text().replace("</body>", "<script>gone()</script></body>"))
    assert "CONSOLE" in browse(broken, tmp_path / "profile", "--dump-dom").stderr


@pytest.mark.parametrize("name", ["index.html", "traces.html", "traces.html#removed", "traces.html#questions"])
def test_it_fits_a_phone(page, tmp_path, name):
    phone = tmp_path / "phone.html"
    phone.write_text(PHONE.format(page=f"{page.parent.as_uri()}/{name}"))
    title = re.search(r"<title>(\d+)</title>", browse(phone, tmp_path / "profile", "--dump-dom").stdout)
    assert title and int(title[1]) <= 390


@pytest.mark.parametrize("look", [(), ("--force-dark-mode",)])
@pytest.mark.parametrize("name", ["index.html", "traces.html"])
def test_screenshots_in_light_and_dark_mode(page, tmp_path, look, name):
    picture = tmp_path / "page.png"
    browse(page.with_name(name), tmp_path / "profile", f"--screenshot={picture}", *look)
    assert picture.stat().st_size > 20_000


def test_it_prints(page, tmp_path):
    printed = tmp_path / "page.pdf"
    browse(page, tmp_path / "profile", f"--print-to-pdf={printed}")
    assert printed.read_bytes().startswith(b"%PDF") and printed.stat().st_size > 20_000


STEPS = """<script>
const found = {}, pause = () => new Promise(done => setTimeout(done, 60)), press = key =>
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key: key, bubbles: true }));
const shown = () => document.querySelectorAll("#list li").length;
const chosen = () => document.querySelector("[aria-current=true]").href;
async function set(name, value) {
  byId("filters").elements[name].value = value;
  byId("filters").dispatchEvent(new Event("input", { bubbles: true }));
  await pause();
}
async function play() {
  await pause();
  found.all = shown(); found.first = chosen();
  press("j"); await pause(); found.second = chosen();
  press("k"); await pause(); found.back = chosen();
  await set("category", "math"); found.math = shown();
  await set("search", "how many"); found.searched = shown();
  await set("search", "zzz"); found.nothing = shown();
  await set("search", ""); press("t"); await pause(); found.open = document.querySelectorAll("details[open]").length;
  location.hash = "#removed"; await pause(); await set("rule", "clean: url"); found.urls = shown();
  press("r"); await pause(); found.labelled = byId("detail").textContent.includes("labelled right");
  location.hash = "#questions"; await pause(); found.questions = shown();
  press("/"); found.focus = document.activeElement.id;
  document.title = JSON.stringify(found);
}
play();
</script></body>"""


def test_the_reader_filters_searches_and_follows_the_keyboard(page, tmp_path):
    played = tmp_path / "traces.html"
    played.write_text(page.with_name("traces.html").read_text().replace("</body>", STEPS))
    seen = browse(played, tmp_path / "profile", "--dump-dom", "--virtual-time-budget=5000")
    assert "CONSOLE" not in seen.stderr, seen.stderr
    found = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", seen.stdout)[1]))  # type: ignore[index]
    assert found["first"] == found["back"] != found["second"]
    assert found["all"] > found["math"] >= found["searched"] > found["nothing"] == 0
    assert found["open"] and found["urls"] and found["labelled"] and found["questions"] and found["focus"] == "search"
