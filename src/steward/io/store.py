"""Content-addressed files behind an fsspec URL: a local folder by default, S3 or GCS by setting."""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from steward.errors import ArtifactDamaged, SettingsError, StewardError, StoreUnavailable
from steward.records import File, canonical_json

BLOCK = 1 << 20


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remove_abandoned(target: Path) -> None:
    """What writers of this file left when they were killed: parts that nobody holds a lock on any more."""
    for part in target.parent.glob(f"{target.name}.*.part"):
        with suppress(OSError), part.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A folder that is gone afterwards; what killed processes left of theirs goes when the next one is made.

    Whoever uses a folder holds a lock on it, which ends with the process. A file system without locks is never swept.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as using:
        with _locked(parent, wait=True):  # nobody else may look between making a folder and locking it
            abandoned = [folder for folder in parent.glob("work-*") if _is_abandoned(folder)]
            made = Path(tempfile.mkdtemp(prefix="work-", dir=parent))
            using.enter_context(_locked(made, wait=False))
        for folder in abandoned:
            shutil.rmtree(folder, ignore_errors=True)
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    with suppress(OSError), _locked(folder, wait=False) as mine:
        return mine
    return False


@contextmanager
def _locked(folder: Path, *, wait: bool) -> Iterator[bool]:
    """A lock on a folder; False if somebody else has it, or nobody can."""
    descriptor, mine = os.open(folder, os.O_RDONLY), False
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            mine = True
        yield mine
    finally:
        os.close(descriptor)


def is_full(problem: Exception) -> bool:
    """Of the operating system's error DuckDB keeps nothing but the text."""
    full = (errno.ENOSPC, errno.EDQUOT)
    return getattr(problem, "errno", None) in full or any(os.strerror(number) in str(problem) for number in full)


class Store:
    """Files named by their content and records named by their address.

    Writing is atomic: a reader sees the whole file or none, and writing the same content twice leaves one file.

    Parameters
    ----------
    url : fsspec URL or local folder; created on the first write.
    cache : local folder for scratch files and for copies of remote files.
    """

    def __init__(self, url: str, cache: Path) -> None:
        self.url = url
        self.cache = cache
        try:
            self.filesystem, root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as problem:
            raise SettingsError(
                "STEWARD_STORE cannot be used",
                got=str(problem),
                allowed="a folder, or an fsspec URL such as s3://bucket/path",
            ) from problem
        self.root = str(root).rstrip("/")
        self.local = isinstance(self.filesystem, LocalFileSystem)

    @property
    def shown_url(self) -> str:
        """The URL without anything secret."""
        return re.sub(r"://[^/]*@", "://", self.url)

    def put(self, path: Path, name: str) -> File:
        """Keep a file; `name` gives its ending and is for people. Raises StoreUnavailable."""
        digest = sha256_of(path)
        key = f"files/{digest[:2]}/{digest}{''.join(Path(name).suffixes[-2:])}"
        if not self._holds(key, digest):
            self._write(key, path)
        return File(uri=self._uri(key), sha256=digest, bytes=path.stat().st_size)

    def fetch(self, file: File) -> Path:
        """A local path with the file's recorded content; raises ArtifactDamaged if it is another, or gone."""
        key = self._key(file.uri)
        try:
            path = Path(self.root, key) if self.local else self._copy_in(key, file.sha256)
            digest = sha256_of(path)
        except FileNotFoundError as problem:
            raise ArtifactDamaged("a stored file is gone", got=file.uri, do="Restore it from a backup") from problem
        except OSError as problem:
            raise self._unavailable(problem) from problem
        if digest != file.sha256:
            raise ArtifactDamaged(
                "a stored file has changed since it was recorded",
                got=f"sha256 {digest} at {file.uri}",
                allowed=f"sha256 {file.sha256}",
                do="Restore it from a backup, or train again",
            )
        return path

    def put_folder(self, folder: Path, name: str) -> str:
        """Keep a folder of pages for people under `pages/<name>`; answers its URI. Written last: index.html."""
        paths = sorted(p for p in folder.rglob("*") if p.is_file())
        for path in sorted(paths, key=lambda p: p.name == "index.html"):
            self._write(f"pages/{name}/{path.relative_to(folder).as_posix()}", path)
        return self._uri(f"pages/{name}")

    def put_page(self, path: Path, name: str) -> str:
        """Keep one page for people under `pages/<name>`, replacing an older one; answers its URI."""
        self._write(f"pages/{name}", path)
        return self._uri(f"pages/{name}")

    def has_page(self, name: str) -> bool:
        """Whether `put_page` has kept something under this name."""
        try:
            return bool(self.filesystem.exists(f"{self.root}/pages/{name}"))
        except OSError as problem:
            raise self._unavailable(problem) from problem

    def read_page(self, name: str) -> bytes:
        """What `put_page` keeps under this name; raises ArtifactDamaged if it is gone."""
        try:
            content: bytes = self.filesystem.cat_file(f"{self.root}/pages/{name}")
        except FileNotFoundError as problem:
            raise ArtifactDamaged("a stored page is gone", got=name, do="`steward report` writes it again") from problem
        except OSError as problem:
            raise self._unavailable(problem) from problem
        return content

    def read_record(self, kind: str, address: str) -> dict[str, Any] | None:
        """The record at an address, None if there is none; raises ArtifactDamaged if it was changed."""
        key = self._record_key(kind, address)
        try:
            envelope = json.loads(self.filesystem.cat_file(f"{self.root}/{key}"))
            body: dict[str, Any] = envelope["body"]
            intact = hashlib.sha256(canonical_json(body).encode()).hexdigest() == envelope["sha256"]
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as problem:
            raise ArtifactDamaged("a stored record is not one", got=key, do="Delete it and run again") from problem
        except OSError as problem:
            raise self._unavailable(problem) from problem
        if not intact:
            raise ArtifactDamaged(
                "a stored record has changed since it was written", got=key, do="Restore it, or delete it and run again"
            )
        return body

    def write_record(self, kind: str, address: str, body: dict[str, Any]) -> None:
        """Keep a record at its address; its fields stay in their order, which may mean something."""
        text = canonical_json(body)
        envelope = {"kind": kind, "sha256": hashlib.sha256(text.encode()).hexdigest(), "body": body}
        key = self._record_key(kind, address)
        with self.scratch() as folder:
            path = folder / "record.json"
            path.write_text(json.dumps(envelope, indent=1), encoding="utf-8")
            self._write(key, path)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A local folder that is gone afterwards; raises StoreUnavailable when a library finds its disk full."""
        with ExitStack() as using:
            try:
                folder = using.enter_context(scratch_folder(self.cache))
            except OSError as problem:
                raise self._unavailable(problem) from problem
            try:
                yield folder
            except StewardError:
                raise
            except Exception as problem:
                if is_full(problem):
                    raise self._unavailable(problem) from problem
                raise

    def record_uri(self, kind: str, address: str) -> str:
        """Where the record at an address is."""
        return self._uri(self._record_key(kind, address))

    def _record_key(self, kind: str, address: str) -> str:
        return f"records/{kind}/{address}.json"

    def _uri(self, key: str) -> str:
        return f"{self.url.rstrip('/')}/{key}"

    def _key(self, uri: str) -> str:
        """The part of a URI below any store's root: a store that was moved still finds its files."""
        for part in ("/files/", "/records/", "/pages/"):
            if part in uri:
                return part[1:] + uri.rsplit(part, 1)[1]
        raise ArtifactDamaged("not a file of a store", got=uri)

    def _holds(self, key: str, digest: str) -> bool:
        """Is the file there? A local one that was damaged is not: writing it again heals it."""
        try:
            if not self.local:
                return bool(self.filesystem.exists(f"{self.root}/{key}"))
            path = Path(self.root, key)
            return path.exists() and sha256_of(path) == digest
        except OSError as problem:
            raise self._unavailable(problem) from problem

    def _write(self, key: str, path: Path) -> None:
        target = f"{self.root}/{key}"
        try:
            if not self.local:
                self.filesystem.put_file(str(path), target)
                return
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            remove_abandoned(Path(target))
            beside = Path(f"{target}.{uuid.uuid4().hex}.part")
            try:
                with path.open("rb") as content, beside.open("xb") as stream:
                    fcntl.flock(stream, fcntl.LOCK_EX)
                    shutil.copyfileobj(content, stream, BLOCK)
                    stream.flush()
                    os.fsync(stream.fileno())
                    os.replace(beside, target)
            finally:
                beside.unlink(missing_ok=True)
        except OSError as problem:
            raise self._unavailable(problem) from problem

    def _copy_in(self, key: str, sha256: str) -> Path:
        path = self.cache / "files" / sha256
        if not path.exists() or sha256_of(path) != sha256:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_suffix(f".{uuid.uuid4().hex}.part")
            self.filesystem.get_file(f"{self.root}/{key}", str(beside))
            os.replace(beside, path)
        return path

    def _unavailable(self, problem: Exception) -> StoreUnavailable:
        return StoreUnavailable(
            "the store cannot be used now",
            got=f"{getattr(problem, 'strerror', None) or problem} ({self.shown_url})",
            do="Free space or check STEWARD_STORE, then run again: nothing half-written is left",
        )
