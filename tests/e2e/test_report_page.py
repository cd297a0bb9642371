"""The report in a headless browser: no network requests or errors, all figures drawn, fits a phone."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import dvc

FIGURES = 10
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
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", dom) and "url(http" not in dom
    assert all(caption.strip() for caption in re.findall(r"<figcaption>(.*?)</figcaption>", dom, re.DOTALL))


def test_script_errors_are_detected(page, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text().replace("</body>", "<script>gone()</script></body>"))
    assert "CONSOLE" in browse(broken, tmp_path / "profile", "--dump-dom").stderr


def test_it_fits_a_phone(page, tmp_path):
    phone = tmp_path / "phone.html"
    phone.write_text(PHONE.format(page=page.as_uri()))
    title = re.search(r"<title>(\d+)</title>", browse(phone, tmp_path / "profile", "--dump-dom").stdout)
    assert title and int(title[1]) <= 390


@pytest.mark.parametrize("look", [(), ("--force-dark-mode",)])
def test_screenshots_in_light_and_dark_mode(page, tmp_path, look):
    picture = tmp_path / "page.png"
    browse(page, tmp_path / "profile", f"--screenshot={picture}", *look)
    assert picture.stat().st_size > 20_000
