"""Parts of a prediction job: finished chunks on disk, from which an interrupted job resumes."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sightline import files
from sightline.errors import RequestError
from sightline.store import file_digest, lock_folder, plain, write_json, write_text


def request_of(model: str | Path, paths: Sequence[str | Path], **options: Any) -> dict[str, Any]:
    """Return what identifies a job: the classifier's bytes, the named paths, and the options that change its entries."""
    file = Path(model)
    file = file / "classifier.safetensors" if file.is_dir() else file
    named = {key: [str(v) for v in value] if isinstance(value, tuple) else value for key, value in options.items()}
    return dict(plain({"model": file_digest(file), "paths": [str(path) for path in paths], **named}))


class Parts:
    """Finished chunks of a job, one JSON line per image.

    Args:
        folder: Folder of the parts.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._finished = False
        self._files = sorted(folder.glob("part-*.jsonl"))
        self.images = self.failed = 0
        for entry in self.entries():
            self._count(entry)

    @classmethod
    @contextlib.contextmanager
    def open(cls, out: Path | None, request: dict[str, Any], *, resume: bool) -> Iterator[Parts]:
        """Open the parts of a job for the block: beside its output file, or in a temporary folder.

        Args:
            out: Output file; None for none.
            request: What identifies the job.
            resume: Whether to keep the parts of an interrupted job; else they are removed.

        Raises:
            RequestError: If the interrupted job was another one, or another process works on it.
        """
        if out is None:
            with tempfile.TemporaryDirectory(prefix="sightline-predict-") as name:
                yield cls(Path(name))
            return
        folder = out.with_name(f".{out.name}.parts")
        with lock_folder(folder):
            if resume and (folder / "request.json").is_file():
                _check_same(folder / "request.json", request)
            else:
                for file in folder.glob("part-*.jsonl"):
                    file.unlink()
                write_json(folder / "request.json", request)
            parts = cls(folder)
            yield parts
        if parts._finished:
            shutil.rmtree(folder, ignore_errors=True)

    def add(self, entries: Sequence[dict[str, Any]]) -> None:
        """Write one chunk, atomically."""
        file = self._folder / f"part-{len(self._files):08d}.jsonl"
        write_text(file, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries))
        self._files.append(file)
        for entry in entries:
            self._count(entry)

    def _count(self, entry: dict[str, Any]) -> None:
        self.images += 1
        self.failed += "error" in entry

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield the entries of all chunks, in order."""
        for file in list(self._files):
            for line in files.read_text(file).split("\n"):
                if line:
                    yield json.loads(line)

    def finish(self) -> None:
        """Mark the job as finished, so that its parts are removed."""
        self._finished = True


def _check_same(file: Path, request: dict[str, Any]) -> None:
    """Check that an interrupted job is the requested one.

    Raises:
        RequestError: If it differs; the message names the first difference.
    """
    try:
        before = json.loads(files.read_text(file))
    except ValueError:
        before = {}
    for key, value in request.items():
        if before.get(key) != value:
            what = "another classifier" if key == "model" else f"{key} {before.get(key)!r}, not {value!r}"
            raise RequestError(f"the interrupted job had {what}", "use the same arguments, or start again without --resume")
