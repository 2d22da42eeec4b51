"""A problem in the route file, with the place where the operator can mend it."""

import msgspec


class Problem(msgspec.Struct, frozen=True, order=True):
    """One thing that is wrong, at one place; sorted by place."""

    line: int
    """Line in the file, from 1."""
    column: int
    """Column in the line, from 1."""
    message: str
    """What is wrong and what to do, in one line."""

    def at(self, file: str) -> str:
        """Return the line that the operator sees, `FILE:LINE:COLUMN: message`."""
        return f"{file}:{self.line}:{self.column}: {self.message}"
