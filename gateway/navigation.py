"""What kind of client is asking: a browser about to show a page, or a program."""

from gateway.head import RequestHead


def is_navigation(head: RequestHead) -> bool:
    """Return whether a browser is about to show the answer as a page.

    Its own word for it counts (Fetch Metadata, `Sec-Fetch-Mode`), else whether it asks for HTML.
    """
    if head.method not in ("GET", "HEAD"):
        return False
    mode = head.field("sec-fetch-mode")
    return mode == "navigate" if mode else _accepts(head, "text/html") > 0


def wants_page(head: RequestHead) -> bool:
    """Return whether the client asks for HTML by name, and for JSON no more than that."""
    page = _accepts(head, "text/html")
    return page > 0 and page >= _accepts(head, "application/json")


def _accepts(head: RequestHead, media_type: str) -> float:
    """Return the weight that the client gives *media_type* by name (RFC 9110 12.5.1), else 0.

    Ranges (`*/*`) do not count: programs send them, and no browser relies on them for pages.
    """
    for value in head.by_name.get("accept", ()):
        for item in value.lower().split(","):
            name, *parameters = (part.strip() for part in item.split(";"))
            if name == media_type:
                return _weight(parameters)
    return 0.0


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                weight = float(parameter[2:])
            except ValueError:
                return 0.0
            return weight if 0.0 <= weight <= 1.0 else 0.0  # also when it is not a number
    return 1.0
