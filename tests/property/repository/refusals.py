"""A refusal as a value: what property tests ask about any outside input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardline.core.errors import ServingError

if TYPE_CHECKING:
    from collections.abc import Callable


def refusal_of(call: Callable[[], object]) -> ServingError | None:
    """The ServingError that the call raised, its text checked to be one bounded line; None where it went well.

    Anything else that is raised is a failure of the test.
    """
    try:
        call()
    except ServingError as error:
        if "\n" in error.message or len(error.message) > 2000:
            raise AssertionError(f"not one bounded line: {error.message[:3000]!r}") from error
        return error
    return None
