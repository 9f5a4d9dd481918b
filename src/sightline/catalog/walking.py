"""Folder traversal: list the files that may be images, and count or name everything that was ignored."""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from sightline import remote
from sightline.containers import has_archive_name, is_array_file
from sightline.errors import RequestError
from sightline.files import is_file, kind_of_file
from sightline.records import Progress, silent
from sightline.store import OUTPUT_MARK

# Extensions of files that are ignored. Every other file is opened and becomes a row, with a problem if it is not an image.
_OTHER_SUFFIXES = frozenset(
    (
        *(".txt", ".md", ".markdown", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini"),
        *(".cfg", ".log", ".html", ".htm", ".css", ".js", ".py", ".ipynb", ".sh", ".bat", ".db", ".sqlite", ".lnk", ".url"),
        *(".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".npz", ".npy", ".h5", ".hdf5", ".mat", ".pkl"),
        *(".pt", ".pth", ".safetensors", ".onnx", ".parquet", ".feather", ".arrow", ".doc", ".docx", ".xls", ".xlsx"),
        *(".mp4", ".mov", ".avi", ".mkv", ".webm", ".mp3", ".wav", ".flac"),
    )
)
_SYSTEM_FILES = frozenset(("thumbs.db", "desktop.ini", "icon\r"))
# Folders created by systems, network storage and programming tools, in lower case. Hidden folders are such folders, too.
_TOOL_FOLDERS = frozenset(
    (
        *("__macosx", "temporary items", "network trash folder"),  # macOS and its network shares
        *("$recycle.bin", "recycler", "recycled", "system volume information", "$extend", "found.000"),  # Windows
        *("@eadir", "#recycle", "#snapshot", "@tmp", "@sharebin", "@synologydrive"),  # Synology
        *("@recycle", "@recently-snapshot", "@__thumb", "@transcode"),  # QNAP
        *("lost+found", "lost.dir", "~snapshot", "_gsdata_", "trash-1000"),  # Linux, Android, NetApp, GoodSync
        *("__pycache__", "node_modules", "site-packages", "lightning_logs", "mlruns", "wandb"),  # programming
    )
)
_VIRTUAL_ENVIRONMENT = "pyvenv.cfg"
_RUN_FILES = frozenset(("run.json", "recipe.toml"))  # a folder with one of these and catalog.csv is a run folder
_TELL_EVERY = 2000
PHOTOS_HINT = "name a folder of photographs, a table (.csv, .parquet), an archive (.zip, .tar.gz), or arrays (.npz, .h5)"
_MOST_NAMED = 5


@dataclass(slots=True)
class Walk:
    """Result of the traversal of a folder.

    Args:
        rows: (path relative to the root with forward slashes, problem or None) of everything that becomes a row.
        folders: Relative path of every folder that was opened, "" for the root.
        passed: Ignored files: kind → number.
        tools: Ignored folders of systems and tools, hidden ones included: name → number.
        tool_files: Number of files in those folders.
        runs: Relative paths of ignored folders that were written by Sightline.
        arrays: Relative paths of ignored files of arrays.
        archives: Relative paths of ignored archives.
        linked: Number of links that were followed.
    """

    rows: list[tuple[str, str | None]] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    passed: Counter[str] = field(default_factory=Counter)
    tools: Counter[str] = field(default_factory=Counter)
    tool_files: int = 0
    runs: list[str] = field(default_factory=list)
    arrays: list[str] = field(default_factory=list)
    archives: list[str] = field(default_factory=list)
    linked: int = 0

    def notes(self) -> list[str]:
        """Return notes on ignored files and folders."""
        notes = []
        if self.passed:
            kinds = ", ".join(f"{n} {kind}{'s' if n > 1 else ''}" for kind, n in sorted(self.passed.items()))
            notes.append(f"ignored: {kinds}")
        if self.tools:
            names = [f"{name} ({n:,})" if n > 1 else name for name, n in sorted(self.tools.items())]
            inside = f", with {self.tool_files:,} file{'s' if self.tool_files != 1 else ''} inside" if self.tool_files else ""
            notes.append(f"ignored: {_named(names, self.tools.total())}, created by the system or a tool{inside}")
        if self.runs:
            notes.append(f"ignored: {_named(sorted(self.runs), len(self.runs))}, written by Sightline")
        if self.linked:
            notes.append(f"{self.linked:,} link{'s were' if self.linked > 1 else ' was'} followed")
        return notes


def _named(names: list[str], total: int) -> str:
    """Return the first names of folders, after their number if there are several."""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ("" if total == 1 else f"{total:,} folders: ") + ", ".join(names[:_MOST_NAMED]) + more


def walk(root: Path, progress: Progress = silent, *, follow_links: bool = False) -> Walk:
    """List the files below a folder without opening them.

    Links to files inside the root are followed. Other links, special files (pipes, devices), unreadable folders and
    names that are not UTF-8 become rows with a problem.

    Args:
        root: The folder.
        progress: Progress callback, called every 2,000 files.
        follow_links: Whether to follow links to files outside the root and to folders, too. Each folder is read once.

    Raises:
        RequestError: If the folder does not exist or cannot be opened.
    """
    if not root.is_dir():
        what = "is a file, not a folder" if is_file(root) else "does not exist"
        raise RequestError(f"{root} {what}", PHOTOS_HINT)
    seen = Walk()
    real = None if follow_links else os.path.realpath(root)
    todo, visited = [""], set[tuple[int, int]]()
    while todo:
        folder = todo.pop()
        try:
            status = os.stat(_join(root, folder))
            key = (status.st_dev, status.st_ino)
            if key in visited and key != (0, 0):  # the same folder again, through a junction or a mount
                seen.rows.append(_row(folder, "link: the folder was already read under another name"))
                continue
            visited.add(key)
            inside = _listing(root, folder, seen)
        except OSError as error:
            if not folder:
                raise RequestError(f"{root} cannot be opened ({error.strerror})", "check its permissions") from error
            seen.rows.append(_row(folder, f"unreadable: the folder cannot be opened ({error.strerror})"))
            continue
        seen.folders.append(writable(folder)[0])
        for entry in inside:
            _add(entry, f"{folder}/{entry.name}" if folder else entry.name, real, seen, todo)
            if len(seen.rows) % _TELL_EVERY == 0 and seen.rows:
                progress("listing files", len(seen.rows), 0)
    seen.rows.sort()
    return seen


def walk_remote(root: Path) -> Walk:
    """List the files below a folder on an object store without opening them; no folders if there is none.

    Args:
        root: URI of the folder.

    Raises:
        RequestError: If its protocol is not known.
        OSError: If it cannot be listed.
    """
    seen = Walk()
    for path in remote.list_files(root):
        folder, _, name = path.rpartition("/")
        kind = passed_over(name)
        if any(part.startswith(".") or part.lower() in _TOOL_FOLDERS for part in folder.split("/") if part):
            seen.tool_files += 1
        elif kind is not None:
            seen.passed[kind] += 1
        else:
            seen.rows.append(_row(path, None))
    seen.folders = sorted({"", *(path.rpartition("/")[0] for path, _ in seen.rows)}) if remote.is_folder(root) else []
    return seen


def _join(root: Path, relative: str) -> str:
    """Return an absolute path; the relative one may be empty or contain bytes that are not UTF-8."""
    return os.path.join(root, *relative.split("/")) if relative else os.fspath(root)


def _listing(root: Path, folder: str, seen: Walk) -> list[os.DirEntry[str]]:
    """Return a folder's entries; none if Sightline or a tool created the folder. A mark in the root itself is ignored."""
    with os.scandir(_join(root, folder)) as entries:
        inside = list(entries)
    names = {e.name for e in inside}
    if ("catalog.csv" in names and not _RUN_FILES.isdisjoint(names)) or (folder and OUTPUT_MARK in names):
        seen.runs.append(writable(folder)[0] or ".")
        return []
    if folder and _VIRTUAL_ENVIRONMENT in names:
        _add_tool(_join(root, folder), writable(folder)[0].rpartition("/")[2], seen)
        return []
    return inside


def _add_tool(place: str | os.DirEntry[str], name: str, seen: Walk) -> None:
    """Count a folder of a system or a tool, and the files in it."""
    seen.tools[writable(name)[0]] += 1
    seen.tool_files += sum(len(files) for _, _, files in os.walk(place))


def _add(entry: os.DirEntry[str], path: str, real_root: str | None, seen: Walk, todo: list[str]) -> None:
    """Add one entry of a folder to the result: as a row, as ignored, or as a folder to open. Follow links without a root."""
    kind = passed_over(entry.name)
    follow = real_root is None
    try:
        if entry.is_dir(follow_symlinks=follow):
            seen.linked += entry.is_symlink()
            if entry.name.startswith(".") or entry.name.lower() in _TOOL_FOLDERS:
                _add_tool(entry, entry.name, seen)
            elif entry.is_symlink():
                todo.insert(0, path)  # last, so that a folder is read under its own name
            else:
                todo.append(path)
        elif kind is not None:
            seen.passed[kind] += 1
            if is_array_file(entry.name):
                seen.arrays.append(writable(path)[0])
            elif has_archive_name(entry.name):
                seen.archives.append(writable(path)[0])
        elif entry.is_symlink():
            problem = _link_problem(entry, real_root)
            seen.linked += follow and problem is None
            seen.rows.append(_row(path, problem))
        elif entry.is_file(follow_symlinks=False):
            seen.rows.append(_row(path, None))
        else:
            seen.rows.append(_row(path, _special(entry)))
    except OSError as error:
        circular = _link_problem(entry, real_root) if entry.is_symlink() else None
        seen.rows.append(_row(path, circular or f"unreadable: {error.strerror}"))


def passed_over(name: str) -> str | None:
    """Return the kind of a file that is ignored because of its name, None if it is not ignored.

    Example:
        >>> passed_over(".DS_Store"), passed_over("labels.csv"), passed_over("7.JPG")
        ('hidden or system file', '.csv file', None)
    """
    if name.startswith(".") or name.lower() in _SYSTEM_FILES:
        return "hidden or system file"
    suffix = os.path.splitext(name)[1].lower()
    return f"{suffix} file" if suffix in _OTHER_SUFFIXES else None


def _link_problem(entry: os.DirEntry[str], real_root: str | None) -> str | None:
    """Return the problem of a symbolic link, None if its target is a file inside the root, or anywhere without a root."""
    try:
        status = os.stat(entry.path)
    except OSError:
        return "link: its target does not exist, or the link is circular"
    if stat.S_ISDIR(status.st_mode):
        return "link: links to folders are not followed"
    if real_root is not None and not os.path.realpath(entry.path).startswith(os.path.join(real_root, "")):
        return "link: its target is outside the folder"
    return None if stat.S_ISREG(status.st_mode) else "not a file: it links to a pipe, a device or a socket"


def _special(entry: os.DirEntry[str]) -> str:
    """Return the problem of an entry that is neither a file nor a folder nor a link."""
    mode = entry.stat(follow_symlinks=False).st_mode
    return f"not a file: it is {kind_of_file(mode)}"


def writable(path: str) -> tuple[str, str | None]:
    """Return a path that can be written to a table, and the problem if this differs from the path, which cannot be opened then.

    Bytes that are not UTF-8 become `\\xe9`, NUL characters `␀`.

    Example:
        >>> writable("cat/1.jpg"), writable("cat\\0.jpg")
        (('cat/1.jpg', None), ('cat␀.jpg', 'name: it contains a NUL character; correct the table'))
    """
    if "\0" in path:
        return writable(path.replace("\0", "␀"))[0], "name: it contains a NUL character; correct the table"
    try:
        path.encode("utf-8")
        return path, None
    except UnicodeEncodeError:
        text = path.encode("utf-8", "surrogateescape" if _from_bytes(path) else "backslashreplace")
        return text.decode("utf-8", errors="backslashreplace"), "name: it is not UTF-8; rename the file"


def _from_bytes(path: str) -> bool:
    """Return whether all surrogates in a path represent single bytes, as in paths from Python's file functions."""
    return all(0xDC80 <= ord(c) <= 0xDCFF for c in path if 0xD800 <= ord(c) <= 0xDFFF)


def _row(path: str, problem: str | None) -> tuple[str, str | None]:
    """Return (path, problem) of a row; a name that is not UTF-8 is a problem, since it cannot be a key."""
    shown, unwritable = writable(path)
    return shown, problem or unwritable
