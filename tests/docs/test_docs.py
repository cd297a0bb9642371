"""The documentation: its links, its commands, its YAML, and the site that is built of it."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from distillery.core.config import known_sections

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CURRENT = [page for page in PAGES if page.name != "log.md"]
"""The log has the names of its time."""
LEFT_OUT = re.compile(r",? *\.\.\.")


def named(pages):
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.name)


def blocks(page, language):
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def anchors(page):
    """What headings are linked by."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@named(PAGES)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{page.name}: {target}"


@named(CURRENT)
def test_commands_exist(page):
    text = page.read_text()
    made = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    quoted = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    commands = [*quoted, *(line for block in blocks(page, "bash") for line in block.splitlines())]
    for target in (name for each in commands for name in re.findall(r"^make ([a-z-]+)", each)):
        assert target in made, f"{page.name}: make {target}"
    for module in re.findall(r"python -m ([a-z_.]+)", text):
        assert importlib.util.find_spec(module), f"{page.name}: python -m {module}"


@named(PAGES)
def test_settings_that_are_shown_are_yaml_with_known_sections(page):
    for block in blocks(page, "yaml"):
        shown = yaml.safe_load(LEFT_OUT.sub("", block).replace("<commit>", "c"))
        assert set(shown) <= known_sections() | {"engine"}, page.name


@named(PAGES)
def test_python_that_is_shown_compiles(page):
    for block in blocks(page, "python"):
        compile(block, page.name, "exec")


def test_every_page_is_in_the_site():
    listed = re.findall(r"([\w-]+\.md)", (ROOT / "conf/mkdocs.yml").read_text())
    assert sorted(listed) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_asks_no_other_host(tmp_path):
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--config-file",
        "conf/mkdocs.yml",
        "--site-dir",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in tmp_path.glob("*.html"):
        loaded = re.findall(r'<(?:script|img|iframe)[^>]+src="([^"]+)"|<link[^>]+href="([^"]+)"', page.read_text())
        assert not [address for pair in loaded for address in pair if "//" in address], page.name
