import fcntl
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from steward.errors import ArtifactDamaged, SettingsError, StoreUnavailable
from steward.io.store import Store, sha256_of

CONTENT = b"rows and columns"
SMALL = 256 << 10


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    url = str(tmp_path / "store") if request.param == "folder" else f"memory://{uuid.uuid4().hex}"
    return Store(url, tmp_path / "work")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.skops"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that is soon full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine mounts no tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def files_in(store: Store) -> list[str]:
    return [str(path) for path in store.filesystem.find(store.root)]


def overwrite(store: Store, content: bytes) -> None:
    (path,) = files_in(store)
    store.filesystem.pipe_file(path, content)


def test_a_file_comes_back_as_it_was(store: Store, source: Path) -> None:
    file = store.put(source, "model.skops")
    assert (file.bytes, file.sha256, file.uri.endswith(".skops")) == (len(CONTENT), sha256_of(source), True)
    assert store.fetch(file).read_bytes() == CONTENT


def test_the_same_content_is_one_file(store: Store, source: Path) -> None:
    assert store.put(source, "a.skops") == store.put(source, "b.skops")
    assert len(files_in(store)) == 1


@pytest.mark.parametrize("content", [b"rows and columnS", b"rows", b""], ids=["one byte", "cut off", "empty"])
def test_a_changed_file_is_refused(store: Store, source: Path, content: bytes) -> None:
    file = store.put(source, "model.skops")
    store.fetch(file)
    overwrite(store, content)
    for path in (store.cache / "files").glob("*"):
        path.unlink()
    with pytest.raises(ArtifactDamaged, match=rf"changed since it was recorded.*allowed: sha256 {file.sha256}"):
        store.fetch(file)


def test_a_damaged_copy_is_fetched_again(tmp_path: Path, source: Path) -> None:
    store = Store(f"memory://{uuid.uuid4().hex}", tmp_path / "work")
    file = store.put(source, "model.skops")
    store.fetch(file).write_bytes(b"rows")
    assert store.fetch(file).read_bytes() == CONTENT


def test_putting_again_heals_a_damaged_file(tmp_path: Path, source: Path) -> None:
    store = Store(str(tmp_path / "store"), tmp_path / "work")
    file = store.put(source, "model.skops")
    overwrite(store, b"rows")
    assert store.fetch(store.put(source, "model.skops")).read_bytes() == CONTENT
    assert store.put(source, "model.skops") == file


def test_a_file_that_is_gone_is_named(store: Store, source: Path) -> None:
    file = store.put(source, "model.skops")
    store.filesystem.rm(files_in(store)[0])
    with pytest.raises(ArtifactDamaged, match="a stored file is gone"):
        store.fetch(file)


def test_a_moved_store_still_finds_its_files(tmp_path: Path, source: Path) -> None:
    old = Store(str(tmp_path / "old"), tmp_path / "work")
    file = old.put(source, "model.skops")
    Path(old.root).rename(tmp_path / "new")
    assert Store(str(tmp_path / "new"), tmp_path / "work").fetch(file).read_bytes() == CONTENT


def test_a_record_comes_back_as_it_was(store: Store) -> None:
    body = {"value": 1.5, "none": None, "a text": "ü"}
    assert store.read_record("verdict", "abc") is None
    store.write_record("verdict", "abc", body)
    assert store.read_record("verdict", "abc") == body
    assert list(store.read_record("verdict", "abc") or {}) == list(body)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"kind": "verdict", "sha256": "0", "body": {"verdict": "promote"}}', "has changed since it was written"),
        (b'{"kind": "verd', "is not one"),
        (b"[]", "is not one"),
        (b"{}", "is not one"),
        (b"\xff\xfe", "is not one"),
    ],
)
def test_a_changed_record_is_refused(store: Store, content: bytes, message: str) -> None:
    store.write_record("verdict", "abc", {"verdict": "hold"})
    overwrite(store, content)
    with pytest.raises(ArtifactDamaged, match=message):
        store.read_record("verdict", "abc")


def test_a_reader_sees_the_whole_file_or_none(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the content was copied and before it got its name."""
    store = Store(str(tmp_path / "store"), tmp_path / "work")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt("killed")

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt, match="killed"):
        store.put(source, "model.skops")
    monkeypatch.undo()
    assert files_in(store) == []
    assert store.fetch(store.put(source, "model.skops")).read_bytes() == CONTENT


def test_a_killed_writer_leaves_nothing_once_the_file_is_written_again(tmp_path: Path, source: Path) -> None:
    """Killed, as by the kernel, after the content was copied: no cleaning up runs."""
    store = Store(str(tmp_path / "store"), tmp_path / "work")
    code = """
import os, signal, sys
from pathlib import Path
from steward.io.store import Store
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
Store(sys.argv[1], Path(sys.argv[2])).put(Path(sys.argv[3]), "model.skops")
"""
    killed = subprocess.run(
        [sys.executable, "-c", code, store.url, str(store.cache), str(source)], check=False, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL
    assert [Path(name).suffix for name in files_in(store)] == [".part"]
    (abandoned,) = files_in(store)
    with Path(abandoned).open("rb") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        store.put(source, "model.skops")
        assert abandoned in files_in(store), "a writer that lives is left alone"
    Path(store.put(source, "model.skops").uri).unlink()
    assert store.fetch(store.put(source, "model.skops")).read_bytes() == CONTENT
    assert [Path(name).suffix for name in files_in(store)] == [".skops"]


def test_a_page_is_replaced_and_a_folder_kept(store: Store, source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    (folder / "static").mkdir(parents=True)
    (folder / "index.html").write_text("<html>")
    (folder / "static" / "style.css").write_text("a{}")
    uri = store.put_folder(folder, "m/docs")
    assert uri.endswith("pages/m/docs")
    assert sorted(path.rsplit("pages/", 1)[1] for path in files_in(store)) == [
        "m/docs/index.html",
        "m/docs/static/style.css",
    ]
    assert store.put_page(source, "m/card.html") == store.put_page(source, "m/card.html")


def test_a_full_disk_leaves_nothing_half_written(small_disk: Path, tmp_path: Path) -> None:
    store = Store(str(small_disk / "store"), tmp_path / "work")
    big = tmp_path / "big.parquet"
    big.write_bytes(b"x" * (2 * SMALL))
    with pytest.raises(StoreUnavailable, match=r"No space left on device.*Free space"):
        store.put(big, "big.parquet")
    assert files_in(store) == []


def test_a_full_scratch_disk_says_so(small_disk: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), small_disk / "work")
    with pytest.raises(StoreUnavailable, match="No space left"), store.scratch() as folder:
        (folder / "big").write_bytes(b"x" * (2 * SMALL))
    assert list((small_disk / "work").iterdir()) == []


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path, source: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="Not a directory"):
        Store(str(tmp_path / "file" / "store"), tmp_path / "work").put(source, "model.skops")


@pytest.mark.parametrize("url", ["nothing://bucket", "s4://bucket/path"])
def test_an_unknown_kind_of_store_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"STEWARD_STORE cannot be used.*allowed: a folder"):
        Store(url, tmp_path)


def test_no_secret_is_shown(tmp_path: Path) -> None:
    assert Store("memory://key:geheim@bucket/path", tmp_path).shown_url == "memory://bucket/path"


KILLED = """
import os, signal, sys
from pathlib import Path
from steward.io.store import Store
from steward.io.tables import Tables
work = Path(sys.argv[1])
with Store(str(work / "store"), work).scratch() as folder, Tables(1, work).session() as session:
    (folder / "snapshot.parquet").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_swept_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    work = tmp_path / "work"
    store = Store(str(tmp_path / "store"), work)
    with store.scratch() as mine:
        done = subprocess.run([sys.executable, "-c", KILLED, str(work)], check=False)
        assert done.returncode == -signal.SIGKILL
        assert len(list(work.iterdir())) == 3
        (work / "files").mkdir()
        with store.scratch() as other:
            assert set(work.iterdir()) == {mine, other, work / "files"}


def test_an_error_of_the_file_system_passes_through_a_scratch_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match=r"missing\.parquet"),
        Store(str(tmp_path), tmp_path / "work").scratch() as mine,
    ):
        (mine / "missing.parquet").read_bytes()
    assert not list((tmp_path / "work").iterdir())
