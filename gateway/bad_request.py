"""The one exception for a request that is not understood, or must not be."""


class BadRequest(Exception):
    """A request that the strict reading refuses; the connection closes after the answer.

    `status` is 400, 408, 413, 414, 417, 421, 431, 501, 505 or 508. `detail` is a constant text:
    it never repeats a byte of the client's, so it may be shown and logged. `fields` are what the
    answer must say besides, as 405 its `Allow`.
    """

    def __init__(self, status: int, detail: str, fields: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.fields = fields
