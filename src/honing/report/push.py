"""A folder → the Hub, through the Hub's own client. Tokens are the client's affair alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from honing.errors import UserError
from honing.hub import hub_is_reachable


def push_folder(folder: Path, repo_id: str, files: Sequence[str] | None = None) -> str:
    """Upload the named files of a folder (None: all) to a model's repository on the Hub.

    The repository is made where there is none, private where the account's settings say so. The
    address of the commit is returned. Raises UserError where the Hub cannot be reached, nobody is
    logged in, or the Hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    chosen = _existing(folder, files)
    if not hub_is_reachable():
        raise UserError(
            f"{repo_id}: the Hub cannot be reached (or HF_HUB_OFFLINE is set); what would be "
            f"uploaded lies in {folder}"
        )
    try:
        api = HfApi()
        api.create_repo(repo_id, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=chosen,
            commit_message="Upload by honing",
        )
    except LocalTokenNotFoundError:
        raise UserError(f"{repo_id}: nobody is logged in; run 'hf auth login' first") from None
    except HFValidationError:
        raise UserError(f"{repo_id}: is no name of a repository; use OWNER/NAME") from None
    except HfHubHTTPError as error:
        raise UserError(_refused(repo_id, error.response.status_code)) from None
    except Exception as error:  # the client's errors, those of its transport too, share no base
        raise UserError(
            f"{repo_id}: the upload failed ({type(error).__name__}); try again"
        ) from None
    return str(commit.commit_url)


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
    """One line for each way in which the Hub says no. Its own words may quote a request."""
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
