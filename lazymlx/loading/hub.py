"""From what a user calls a model to a folder on the disk: a local path, a name on the Hugging Face Hub, or a short name
of `pretrained.PACKAGES`."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage] - the client's own: httpx's or httpx2's
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..errors import ModelError, RunError
from .pretrained import PACKAGES, fetched_folder, is_fetched

# what mlx-lm fetches
PATTERNS = [
    "*.json",
    "model*.safetensors",
    "*.py",
    "tokenizer.model",
    "*.tiktoken",
    "*.txt",
    "*.jsonl",
    "*.jinja",
]

NOT_ALLOWED = (401, 403)  # the Hub's answers to a token that is missing, wrong or too weak


def find(name: str, revision: str | None = None) -> Path:
    """The folder of a model, downloaded into the Hub's cache if it is not there yet.

    Raises:
        ModelError: there is no such folder or repository, or it may not be read.
        RunError: the Hub could not be reached, or a download broke off.
    """
    path = Path(name).expanduser()
    if path.exists():
        if not path.is_dir():
            raise ModelError(f"model: expected a folder with config.json and safetensors, got the file {path}")
        return path
    if name in PACKAGES:
        if not is_fetched(fetched_folder(name)):
            raise ModelError(f"model: {name} is not on this machine yet; fetch it with 'lazymlx models get {name}'")
        return fetched_folder(name)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelError(
            f"model: no folder {name}; expected a local folder, a Hub name such as mlx-community/NAME, or "
            f"{' or '.join(PACKAGES)}"
        )
    return _download(name, revision)


def _download(name: str, revision: str | None) -> Path:
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=PATTERNS))
    except GatedRepoError:
        raise ModelError(
            f"model: {name} is gated; accept its licence on the Hub and log in with 'hf auth login'"
        ) from None
    except RevisionNotFoundError:
        raise ModelError(f"model: {name} has no revision {revision!r}") from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"model: no folder and no Hub repository {name}; check the spelling, or log in if it is private"
        ) from None
    except (OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        status = error.__cause__.response.status_code if isinstance(error.__cause__, HfHubHTTPError) else None
        if status in NOT_ALLOWED:
            raise _denied(name) from None
        raise ModelError(
            f"model: {name} is no folder and not in the Hub's cache, and the Hub cannot be reached"
            f"{f' (it answers {status})' if status else ''}; "
            "connect once to download it (and unset HF_HUB_OFFLINE), or give a local folder"
        ) from None
    except HFValidationError as error:
        raise ModelError(f"model: {name!r} is no folder and no valid Hub name: {error}") from None
    except HfHubHTTPError as error:
        raise (_denied(name) if error.response.status_code in NOT_ALLOWED else _broken(name, error)) from None
    except (HTTPError, OSError) as error:
        raise _broken(name, error) from None
    if not folder.is_dir():
        raise ModelError(
            f"model: the Hub's repository {name} has no config.json and no model*.safetensors, which is all that can "
            "be read here (no GGUF, no PyTorch weights); name one with safetensors"
        )
    return folder


def _denied(name: str) -> ModelError:
    return ModelError(
        f"model: the Hub does not let you read {name}; log in with 'hf auth login', with a token that may"
    )


def _broken(name: str, error: Exception) -> RunError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return RunError(
        f"model: the download of {name} failed ({reason}); run the command again, "
        "files that are complete will not be fetched twice"
    )
