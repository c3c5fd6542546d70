"""Model files as they are now, read again only where they have changed."""

from collections.abc import Collection
from pathlib import Path
from threading import Lock

from steward.config import ModelFile, Settings
from steward.errors import ModelFileError


class ModelFiles:
    """The model files of an installation: 300 of them take seconds to read, and a page has to be there at once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._read: dict[Path, tuple[tuple[int, int], ModelFile | ModelFileError]] = {}
        self._lock = Lock()

    def among(self, names: Collection[str]) -> tuple[list[ModelFile], list[ModelFileError]]:
        """The model files of these names, and what is wrong with those that cannot be read."""
        with self._lock:
            found = [self._model(path) for path in self._settings.model_paths() if path.stem in names]
        return (
            [model for model in found if isinstance(model, ModelFile)],
            [problem for problem in found if isinstance(problem, ModelFileError)],
        )

    def _model(self, path: Path) -> ModelFile | ModelFileError:
        state = path.stat()
        stamp = (state.st_mtime_ns, state.st_size)
        if path not in self._read or self._read[path][0] != stamp:
            try:
                found: ModelFile | ModelFileError = self._settings.model_at(path)
            except ModelFileError as problem:
                found = problem
            self._read[path] = (stamp, found)
        return self._read[path][1]
