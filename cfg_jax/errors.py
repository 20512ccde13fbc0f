"""What a user can put right: shown as one line, without a traceback."""


class InputError(ValueError):
    """Bad input. The message names the field and the remedy."""


def require(condition, message: str) -> None:
    if not condition:
        raise InputError(message)
