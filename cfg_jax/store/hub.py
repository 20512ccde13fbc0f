"""Weights by their name on the Hugging Face Hub: one .safetensors file, of which nothing is executed."""

from pathlib import Path

from cfg_jax.errors import InputError, require

SCHEME = "hf://"
PATIENCE = 5.0  # seconds in which the hub has to answer; the hub's own client would try for minutes


def fetch(name: str) -> Path:
    """Fetch the file that `name` means, model.safetensors where it names none, and return its path in the hub's cache.

    What is cached is not fetched again, and serves where there is no network or the hub gives no answer. Raises
    InputError without the extra [hub], for a malformed name, and where the hub does not give the file.
    """
    try:
        from huggingface_hub import constants, errors, get_session, hf_hub_download, parse_hf_uri
    except ImportError as error:
        raise InputError(f"{name} needs huggingface_hub: pip install 'cfg_jax[hub]'") from error
    give = "give hf://OWNER/NAME, hf://OWNER/NAME@REVISION or hf://OWNER/NAME/FILE.safetensors"
    try:
        uri = parse_hf_uri(name)
    except errors.HfUriError as error:
        raise InputError(f"{name} is no name of the hub ({error.msg.rstrip('. ')}): {give}") from error
    file = uri.path_in_repo or "model.safetensors"
    require(uri.type == "model", f"{name} is a {uri.type} of the hub, not a model: {give}")
    require(file.endswith(".safetensors"), f"{name} is no .safetensors file, and only those are read: {give}")
    silent = False
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception as error:  # any but a timeout is told better below
        silent = "Timeout" in type(error).__name__
    try:
        return Path(hf_hub_download(uri.id, file, revision=uri.revision, local_files_only=silent))
    except Exception as error:  # the hub's, and those of the network and of the disk
        match error:
            case _ if silent:
                silence = f"{constants.ENDPOINT} gave no answer within {PATIENCE:g} s"
                reason = f"not in the cache, and {silence}: go on when it does, or name a file that is here"
            case errors.GatedRepoError():
                reason = f"the model is gated: ask for access at {constants.ENDPOINT}/{uri.id}, then hf auth login"
            case errors.RepositoryNotFoundError():
                reason = f"there is no model {uri.id}, or it is private: check the name, or hf auth login"
            case errors.RevisionNotFoundError():
                reason = f"the model has no revision {uri.revision}: name a branch, a tag or a commit"
            case errors.RemoteEntryNotFoundError():
                reason = f"the model has no {file}: name one of its files, hf://{uri.id}/FILE.safetensors"
            case _:
                cause = str(error.__cause__ or error).partition("\n")[0]
                reason = f"not in the cache, and not fetched ({cause}): go on when online, or name a file that is here"
        raise InputError(f"{name}: {reason}") from error
