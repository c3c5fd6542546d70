"""Shared by all tests: a workspace of one's own, and things that are trained or started once per session."""

from pathlib import Path

import pytest

from steward.config import Settings
from steward.io.workspace import Workspace

SHARED_DATA = Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace in a folder of its own."""
    return Workspace(Settings.from_environment({"STEWARD_HOME": str(tmp_path / "home"), "STEWARD_JOBS": "1"}))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real tables; tests that need it are skipped where it is not."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real tables are not on this machine")
    return SHARED_DATA
