"""What can go wrong, by who has to act on it."""


class CuveeError(Exception):
    """Any failure with a message for the user: what was found, what was expected, what to do."""


class RecipeError(CuveeError):
    """The recipe is refused before any work starts (exit code 2)."""


class ContractError(CuveeError):
    """A stage, rule or mixer broke its promise: the fault is in its code, not in the data."""


class ShardError(CuveeError):
    """Unreadable input; it becomes a ledger row with `reason` instead of stopping the run."""

    def __init__(self, message: str, reason: str) -> None:
        """`reason` is one of the short stable codes of the README's table."""
        super().__init__(message)
        self.reason = reason
