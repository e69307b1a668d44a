"""Files that are either whole or not there: every result is written beside its place and moved into it."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from xtalk.errors import XtalkError

PARTIAL, LOCK = ".partial-", ".lock"
_HOLDER = f"{PARTIAL}holder"  # cleared like a half-written file if its process is killed


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place, synced to disk, when the block ends well.

    The suffix stays, for writers that go by it. If the block fails, what stood at `path` still stands there
    and the temporary file is gone. Errors: XtalkError if the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        yield partial
        with partial.open("r+b") as written:
            os.fsync(written.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, Exception) and is_disk_full(error):
            raise disk_full(path) from error
        raise


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made if there is none, for this process, and clear it of half-written files.

    The system drops the lock with the process, however that ends. Errors: XtalkError if another holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / LOCK, timeout=0), folder / _HOLDER
    try:
        lock.acquire()
    except Timeout:
        raise XtalkError(
            f"{folder} is in use by another xtalk (process {_read(holder) or 'unknown'}); "
            "wait for it to end, or give another --out"
        ) from None
    try:
        remove_partial(folder)
        holder.write_text(str(os.getpid()), encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def expanded(path: str | Path) -> Path:
    """The path with its ~ or ~user in full.

    Errors: XtalkError for a user that does not exist, and where nobody can say whether there is a file: its
    name is too long, perhaps a text itself, or its folder may not be looked into.
    """
    try:
        full = Path(path).expanduser()
        full.exists()
    except RuntimeError as error:
        raise XtalkError(
            f"cannot expand {str(path)!r}: this machine has no such user; write the path in full"
        ) from error
    except OSError as error:
        raise XtalkError(
            f"cannot look for {str(path)[:80]!r} ({error.strerror}); expected the name of a file or folder"
        ) from error
    return full


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def sha256_of(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_partial(folder: Path) -> None:
    """Remove what a killed process left half-written below `folder`."""
    for partial in folder.rglob(f"{PARTIAL}*"):
        partial.unlink(missing_ok=True)


def is_disk_full(error: Exception) -> bool:
    """Whether an error, Python's or a library's that passes on the system's words, means a full disk."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return os.strerror(errno.ENOSPC) in str(error)


def disk_full(path: Path) -> XtalkError:
    """The error to raise when the disk of `path` is full."""
    return XtalkError(f"no space left on the disk of {path}; free some and give the same command again")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:  # its process has not written it yet, or has just removed it
        return ""


def _sync_folder(folder: Path) -> None:
    """Sync a rename in the folder to disk, where the system opens folders: Windows does not."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
