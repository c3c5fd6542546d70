"""Predictions in files while the database is away: one line each, replayed in order once it is back."""

import fcntl
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice, takewhile
from pathlib import Path

import msgspec

from steward.io.predictions import Logged, new_id

SUFFIX = ".jsonl"


class Spool:
    """The files of a folder that belong to this process: its own, and those that dead ones have left.

    A file is locked by who writes it, so that several services can share the folder. A last line that was torn by a kill
    was never answered for, and is left out.

    Parameters
    ----------
    folder : where the files are; made on first use.

    Attributes
    ----------
    rows : how many have not been replayed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = 0
        self._files: list[_File] = []
        self._writes_last = False
        """Whether the last file is the one that new rows go to."""
        self._decoder = msgspec.json.Decoder(Logged)

    def open(self) -> None:
        """Take over the files that no living process holds; raises OSError."""
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            with suppress(FileNotFoundError, BlockingIOError):
                self._files.append(_File(path))
        self.rows = sum(file.count() for file in self._files)

    def append(self, rows: Sequence[Logged], *, durable: bool) -> None:
        """Add rows, all or none; raises OSError. `durable` waits for the disk."""
        if not self._writes_last:
            self._files.append(_File.create(self.folder))
            self._writes_last = True
        lines = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
        self._files[-1].append(lines, durable=durable)
        self.rows += len(rows)

    def first(self, limit: int) -> list[Logged]:
        """The oldest rows, up to so many; none if all are replayed."""
        while self._files:
            lines = self._files[0].lines(limit)
            if rows := [row for row in map(self._decoded, lines) if row]:
                return rows
            if lines:
                self.replayed()
            else:
                self._drop_first()
        self.rows = 0
        return []

    def set_aside(self, line: bytes) -> None:
        """Keep a line that cannot be replayed, so that it does not stop those behind it."""
        with (self.folder / "damaged").open("ab") as damaged:
            damaged.write(line)

    def replayed(self) -> None:
        """What `first` answered is in the database."""
        self.rows = max(0, self.rows - self._files[0].advance())

    def close(self) -> None:
        """Let go of the files; those with rows in them stay for the next service."""
        for file in self._files:
            file.close()
        self._files = []

    def _drop_first(self) -> None:
        file = self._files.pop(0)
        file.remove()
        self._writes_last = self._writes_last and bool(self._files)

    def _decoded(self, line: bytes) -> Logged | None:
        try:
            return self._decoder.decode(line)
        except msgspec.DecodeError:
            self.set_aside(line)
            return None


class _File:
    """A locked file of the spool; raises BlockingIOError if another process holds it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self.descriptor)
            raise
        self.size = os.fstat(self.descriptor).st_size
        self._read = self._looked_at = 0
        self._pending = 0
        self._synced_folder = False

    @classmethod
    def create(cls, folder: Path) -> "_File":
        """A new file, which has its name only once it is locked: nobody takes it for one that was left."""
        folder.mkdir(parents=True, exist_ok=True)
        name = new_id(time.time())
        draft = folder / f".{name}.new"
        draft.touch(0o600)
        file = cls(draft)
        file.path = draft.rename(folder / f"{name}{SUFFIX}")
        return file

    def count(self) -> int:
        with self.path.open("rb") as stream:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(1 << 20), b""))

    def append(self, lines: bytes, *, durable: bool) -> None:
        try:
            written = 0
            while written < len(lines):
                written += os.write(self.descriptor, lines[written:])
            if durable:
                self._sync()
        except OSError:
            os.ftruncate(self.descriptor, self.size)
            raise
        self.size += len(lines)

    def _sync(self) -> None:
        os.fdatasync(self.descriptor)
        if not self._synced_folder:
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
            self._synced_folder = True

    def lines(self, limit: int) -> list[bytes]:
        """The next whole lines, up to so many."""
        with self.path.open("rb") as stream:
            stream.seek(self._read)
            found = list(takewhile(lambda line: line.endswith(b"\n"), islice(stream, limit)))
        self._looked_at = self._read + sum(map(len, found))
        self._pending = len(found)
        return found

    def advance(self) -> int:
        self._read = self._looked_at
        return self._pending

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        os.close(self.descriptor)
