"""The pages of the documentation against the code."""

import re
import subprocess
import sys

from archives_lib import REPOSITORY

import imagenet_family


def test_pages_of_the_datasets_are_up_to_date():
    result = subprocess.run(
        [sys.executable, REPOSITORY / "scripts" / "make_docs.py", "--check"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, (
        f"run scripts/make_docs.py: {result.stdout}{result.stderr[-800:]}"
    )


def test_links_between_pages_lead_somewhere():
    pages = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
    assert len(pages) >= 10
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_readme_names_every_dataset():
    readme = (REPOSITORY / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in imagenet_family.DATASETS)
