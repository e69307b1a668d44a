"""The Hugging Face hub: downloads of one commit, and one line for whatever keeps it from answering."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from xtalk.errors import XtalkError

_SECONDS = 10.0  # to an answer


def download(name: str, revision: str | None, files: Sequence[str], *, not_files: Sequence[str] = ()) -> Path:
    """The folder, in the hub's cache, of some files of a repository; it is called by their commit.

    files, not_files: names or patterns with * and ?, in which * may stand for folders too. Without an answer
    from the hub within ten seconds, it is the folder that was downloaded before. Errors: XtalkError as
    `hub_errors`.
    """
    with hub_errors(name, revision):
        import huggingface_hub  # here, for it is slow to import and few need it
        from huggingface_hub.errors import LocalEntryNotFoundError

        silence = _silence(name, revision)
        try:
            made = huggingface_hub.snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(files),
                ignore_patterns=list(not_files) or None,
                local_files_only=silence is not None,
            )
        except LocalEntryNotFoundError as error:
            raise error from silence or error.__cause__
    return Path(made)


def _silence(name: str, revision: str | None) -> Exception | None:
    """The error where the hub takes the question and gives no answer, for which the client waits for ever."""
    import huggingface_hub

    try:
        huggingface_hub.HfApi().repo_info(name, revision=revision, timeout=_SECONDS)
    except Exception as error:  # of whatever library the client speaks through; it meets all others again
        return error if type(error).__name__.endswith("Timeout") else None
    return None


@contextmanager
def hub_errors(name: str, revision: str | None = None) -> Iterator[None]:
    """Turn what the hub's client raises into one line.

    Errors: XtalkError says whether the repository is gated, not there, without that revision, or the hub out
    of reach.
    """
    from huggingface_hub.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # each of its attempts is a warning
    try:
        yield
    except Exception as error:  # the client raises errors of many unrelated classes
        raise XtalkError(_explained(error, name, revision)) from error
    finally:
        logging.set_verbosity(verbosity)


def _explained(error: Exception, name: str, revision: str | None) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return (
            f"{name} is gated on the Hugging Face hub, and gave this user nothing; accept its terms on its "
            "page, and log in with `hf auth login` or HF_TOKEN"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"no folder {name!r}, and the Hugging Face hub has no such repository for this user; check the "
            "name, and where it is private log in with `hf auth login` or HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name} on the Hugging Face hub has no revision {revision}; give a branch, a tag or a commit"
    if isinstance(error, errors.HfHubHTTPError):
        reason = error.server_message or f"status {error.response.status_code}"
        return f"the Hugging Face hub refused {name}: {_first_line(reason)}; check the name and your token"
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else None
    return (
        f"no folder {name!r}, and the Hugging Face hub gave no answer for it: {_first_line(cause or error)}; "
        "check the network, HF_ENDPOINT and HF_HUB_OFFLINE"
    )


def _first_line(reason: object) -> str:
    return next(iter(str(reason).strip().splitlines()), "") or type(reason).__name__
