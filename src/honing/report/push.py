"""A folder → the Hub, through the Hub's own client. Tokens are the client's affair alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from honing.errors import UserError
from honing.hub import hub_is_reachable


def check_push(repo_id: str) -> str | None:
    """Raise UserError for what would fail at the end of a long work: a name that is none, a Hub
    that cannot be reached, nobody logged in. Returns what is doubtful, in one line."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import validate_repo_id

    if repo_id.count("/") != 1:  # which would be made under your own name, and not found there
        raise UserError(_no_name(repo_id))
    with _said_in_one_line(repo_id, "the Hub cannot be asked"):
        validate_repo_id(repo_id)
        if not hub_is_reachable():
            raise UserError(f"{repo_id}: the Hub cannot be reached (or HF_HUB_OFFLINE is set)")
        user = HfApi().whoami()
    owner = repo_id.partition("/")[0]
    known = [user.get("name"), *(org.get("name") for org in user.get("orgs") or ())]
    if owner in known:
        return None
    return (
        f"--push: {owner} is neither {user.get('name')}, who is logged in, nor one of their "
        "organisations; check the name"
    )


def push_folder(folder: Path, repo_id: str, files: Sequence[str] | None = None) -> str:
    """Upload the named files of a folder (None: all) to a model's repository on the Hub.

    The repository is made where there is none, private where the account's settings say so. The
    address of the commit is returned. Raises UserError where the Hub cannot be reached, nobody is
    logged in, or the Hub refuses.
    """
    from huggingface_hub import HfApi

    chosen = _existing(folder, files)
    if not hub_is_reachable():
        raise UserError(
            f"{repo_id}: the Hub cannot be reached (or HF_HUB_OFFLINE is set); what would be "
            f"uploaded lies in {folder}"
        )
    with _said_in_one_line(repo_id, "the upload failed"):
        api = HfApi()
        api.create_repo(repo_id, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=chosen,
            commit_message="Upload by honing",
        )
    return str(commit.commit_url)


@contextmanager
def _said_in_one_line(repo_id: str, what: str) -> Iterator[None]:
    """What the Hub's client raises, as the user's error. Its own words may quote a request."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    try:
        yield
    except UserError:
        raise
    except LocalTokenNotFoundError:
        raise UserError(f"{repo_id}: nobody is logged in; run 'hf auth login' first") from None
    except HFValidationError:
        raise UserError(_no_name(repo_id)) from None
    except HfHubHTTPError as error:
        raise UserError(_refused(repo_id, error.response.status_code)) from None
    except Exception as error:  # the client's errors, those of its transport too, share no base
        raise UserError(f"{repo_id}: {what} ({type(error).__name__}); try again") from None


def _no_name(repo_id: str) -> str:
    return f"{repo_id}: is no name of a repository; use OWNER/NAME"


def _existing(folder: Path, files: Sequence[str] | None) -> list[str]:
    """Names of what is uploaded; a file that is wanted and missing is an error."""
    if files is None:
        names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    else:
        names = [name for name in files if (folder / name).is_file()]
    if not names or "README.md" not in names:
        raise UserError(f"{folder}: holds no README.md to upload; write the card first")
    return names


def _refused(repo_id: str, status: int) -> str:
    """One line for each way in which the Hub says no."""
    if status == 401:
        return f"{repo_id}: the Hub does not know you; run 'hf auth login' with a token that writes"
    if status == 403:
        return (
            f"{repo_id}: your token may not write there; use your own name or a token that writes"
        )
    if status == 404:
        return f"{repo_id}: there is no such owner, or it is not yours; check the name"
    if status == 429:
        return f"{repo_id}: the Hub asks to wait (429); try again later"
    return f"{repo_id}: the Hub refused the upload (status {status}); try again later"
