"""The report in a headless browser: nothing asked of the network, no error, every figure drawn. Needs Chromium."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "data/report/index.html"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = [f"--{name}" for name in ("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-sync", "disable-quic")]
QUIET.append("--disable-background-networking")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium here"),
    pytest.mark.skipif(not PAGE.exists(), reason="no report here; `dvc repro` makes it"),
]


def browse(profile: Path, *options: str) -> subprocess.CompletedProcess:
    blind = ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}", "--enable-logging=stderr"]
    command = [str(BROWSER), *QUIET, *blind, *options, PAGE.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_page_asks_for_nothing_and_draws_every_figure(tmp_path):
    seen = browse(tmp_path, "--dump-dom")
    assert "CONSOLE" not in seen.stderr, seen.stderr
    dom = seen.stdout
    assert len(re.findall(r"<figure", dom)) == len(re.findall(r"<svg", dom)) == 9
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", dom) and "url(http" not in dom
    assert all(caption.strip() for caption in re.findall(r"<figcaption>(.*?)</figcaption>", dom, re.DOTALL))


@pytest.mark.parametrize("look", [(), ("--force-dark-mode",), ("--window-size=390,844",)])
def test_it_can_be_photographed(tmp_path, look):
    picture = tmp_path / "page.png"
    browse(tmp_path / "profile", f"--screenshot={picture}", *look)
    assert picture.stat().st_size > 20_000
