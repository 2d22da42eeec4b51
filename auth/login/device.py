"""What a person sees of where a session was begun: the browser, the system, the network.

From `User-Agent` and the address alone: no list of devices, no database of places. What the field
says is never kept or shown, only which of the names below it has; so nobody can write something
into the list of sessions of somebody whose password they know.
"""

import ipaddress
import re

from auth.wording import Wording, phrase

MOST_READ = 512
"""Characters of `User-Agent`; those of browsers are shorter."""

# The first that is found counts: browsers call themselves by the names of others as well.
_BROWSERS = (
    ("Edg", "Edge"),
    ("OPR", "Opera"),
    ("SamsungBrowser", "Samsung Internet"),
    ("Firefox", "Firefox"),
    ("FxiOS", "Firefox"),
    ("CriOS", "Chrome"),
    ("Chrome", "Chrome"),
    ("Safari", "Safari"),
    ("curl", "curl"),
)
_SYSTEMS = (
    ("Windows", "Windows"),
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("CrOS", "ChromeOS"),
    ("Macintosh", "macOS"),
    ("Linux", "Linux"),
)
_NAMES = frozenset(name for _, name in (*_BROWSERS, *_SYSTEMS))


def device_of(user_agent: str) -> str:
    """Return browser and system as `Firefox/Linux`; what is not known is left out."""
    read = user_agent[:MOST_READ]
    browser = next((name for token, name in _BROWSERS if re.search(rf"\b{token}\w*/", read)), "")
    system = next((name for token, name in _SYSTEMS if token in read), "")
    return f"{browser}/{system}".strip("/")


def told_device(device: str, wording: Wording) -> str:
    """Return what `device_of` gave in words; empty for what it never gives."""
    browser, slash, system = device.partition("/")
    if not _NAMES.issuperset({browser, *([system] if slash else [])}):
        return ""  # another login service wrote the record
    if not slash:
        return browser
    return wording.say(phrase("%(browser)s on %(system)s"), browser=browser, system=system)


def told_place(address: str, wording: Wording) -> str:
    """Return *address* in words, as far as it tells by itself where it is; empty if it is none."""
    try:
        read = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if read.is_loopback:
        return wording.say(phrase("this machine"))
    if read.is_private:  # RFC 6890: also link-local and unique local addresses
        return wording.say(phrase("a private network, %(address)s"), address=str(read))
    return str(read)
