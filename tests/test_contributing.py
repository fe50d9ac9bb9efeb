"""The map in CONTRIBUTING.md is that of the code."""

import re
from pathlib import Path

from tests.test_imports import ORDER, PACKAGE

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
LARGEST_FOLDER = 15


def test_every_folder_has_a_row_in_the_order_of_imports():
    rows = re.findall(r"^\| `(\w+)(?:/|\.py)` \|", TEXT, re.MULTILINE)
    assert sorted(rows) == sorted(ORDER)
    folders = [row for row in rows if row not in ("api", "cli")]
    assert folders == [folder for folder in ORDER if folder in folders]


def test_what_it_names_is_there():
    names = re.findall(r"`([\w./]+(?:\.py|/))`", TEXT)
    assert len(names) > 50
    inside = {
        "settings/",
        "printing/",
        "spaces/",
        "tasks/",
        "acceptability/",
        "targets/",
        "width/",
    }  # told of the folder in the row
    for name in {*names} - inside:
        assert (PACKAGE / name).exists() or (ROOT / name).exists(), name


def test_no_folder_is_crowded():
    for folder in {path.parent for path in PACKAGE.rglob("*.py")}:
        assert len([*folder.glob("[!_]*.py")]) <= LARGEST_FOLDER, folder
