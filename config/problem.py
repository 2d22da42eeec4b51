"""A problem in the route file or a file it names, with the place where it can be mended."""

import msgspec


class Problem(msgspec.Struct, frozen=True, order=True):
    """One thing that is wrong, at one place; sorted by place."""

    line: int
    """Line in the file, from 1."""
    column: int
    """Column in the line, from 1."""
    message: str
    """What is wrong and what to do, in one line."""
    file: str = ""
    """The file, if it is not the route file."""

    def at(self, file: str) -> str:
        """Return the line that the operator sees, `FILE:LINE:COLUMN: message`."""
        return f"{self.file or file}:{self.line}:{self.column}: {self.message}"
