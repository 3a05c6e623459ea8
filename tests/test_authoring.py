"""What an author of revisions meets: derived files, drafts, and the page that leads through them."""

from __future__ import annotations

import json
import subprocess
from difflib import unified_diff
from pathlib import Path

import pytest

from conftest import ROOT, clean_environment, copy_checkout, shared_forks
from ragschema.authoring import snapshots
from ragschema.database.settings import Database
from ragschema.errors import UsageError
from ragschema.revisions import manifest
from ragschema.state.expected import COMMAND, read_fingerprints
from test_json import check

# freeze: the derived files


@pytest.mark.author
def test_every_derived_file_is_what_the_revisions_and_the_models_say(empty_database: Database) -> None:
    texts = snapshots.derive(empty_database)
    names = {str(path.relative_to(ROOT)) for path in texts}
    assert {"schema.sql", "docs/schema.md", "alembic/fingerprints.json", "alembic/versions/HEAD"} <= names
    stale = snapshots.find_stale(texts)
    shown = [line for path in stale for line in _difference(path, texts[path])]
    assert not stale, "\n".join([f"Run `{COMMAND}`, and review what it changes:", *shown])


def _difference(path: Path, text: str) -> list[str]:
    found = path.read_text() if path.is_file() else ""
    name = str(path.relative_to(ROOT))
    return list(unified_diff(found.splitlines(), text.splitlines(), name, "derived", lineterm=""))


@pytest.mark.long
def test_freeze_writes_what_is_stale_and_names_it(tmp_path: Path) -> None:
    copy = copy_checkout(tmp_path)
    (copy / "docs").mkdir()
    stale = ["alembic/fingerprints.json", "alembic/versions/HEAD", "docs/schema.md", "schema.sql"]
    (copy / stale[0]).write_text("{}\n")
    (copy / stale[1]).write_text("20251225160000\n")

    def freeze(*options: str) -> subprocess.CompletedProcess[str]:
        told = clean_environment() | {"PYTHONPATH": str(copy / "src")}
        return shared_forks().run("rag", ["migrate", "freeze", *options], copy, told)

    checked = freeze("--check")
    assert checked.returncode == 1
    assert sorted(checked.stdout.splitlines()) == [f"stale {name}" for name in stale]
    assert f"Run `{COMMAND}`" in checked.stderr
    assert not (copy / "schema.sql").exists()
    written = freeze("--json")
    assert written.returncode == 0, written.stderr
    check("migrate freeze", written.stdout)
    assert sorted(json.loads(written.stdout)["changed"]) == stale
    for name in stale:
        assert (copy / name).read_text() == (ROOT / name).read_text()


# releases


@pytest.fixture
def releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "releases.json"
    path.write_text("{}")
    monkeypatch.setattr(manifest, "releases_path", lambda: path)
    return path


def test_what_is_not_released_is_at_head(releases: Path) -> None:
    assert manifest.revision_of_release(manifest.package_version()) == manifest.read_manifest().head
    releases.write_text('{"0.0.9": "20251225170000"}')
    assert manifest.revision_of_release("0.0") == "20251225170000"


def test_a_version_is_released_once(releases: Path) -> None:
    version, head = manifest.package_version(), manifest.read_manifest().head
    releases.write_text(snapshots.releases_text())
    assert json.loads(releases.read_text()) == {version: head}
    assert releases.read_text() == snapshots.releases_text()
    releases.write_text(json.dumps({version: "20251225170000"}))
    assert manifest.revision_of_release(version) == "20251225170000"
    with pytest.raises(UsageError, match=f"Version {version} is released at 20251225170000"):
        snapshots.releases_text()


def test_every_release_ends_at_a_revision() -> None:
    assert set(manifest.read_releases().values()) <= set(read_fingerprints())
