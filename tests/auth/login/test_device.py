"""What is told of a device and its place."""

import pytest

from auth.login.device import MOST_READ, device_of, told_device, told_place
from auth.wording import ENGLISH, built_in

MOZILLA = "Mozilla/5.0 "
WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko) "
CHROME = f"{WEBKIT}Chrome/140.0.0.0 "

AGENTS = {
    f"{MOZILLA}(X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0": "Firefox/Linux",
    f"{MOZILLA}(Windows NT 10.0; Win64; x64) {CHROME}Safari/537.36": "Chrome/Windows",
    f"{MOZILLA}(Windows NT 10.0; Win64; x64) {CHROME}Safari/537.36 Edg/140.0": "Edge/Windows",
    f"{MOZILLA}(Macintosh; Intel Mac OS X 10_15_7) {WEBKIT}Version/19 Safari/605": "Safari/macOS",
    f"{MOZILLA}(iPhone; CPU iPhone OS 19_0 like Mac OS X) CriOS/140.0 Safari/604": "Chrome/iPhone",
    f"{MOZILLA}(iPad; CPU OS 19_0 like Mac OS X) FxiOS/140.0 Safari/604": "Firefox/iPad",
    f"{MOZILLA}(Linux; Android 16; SM-S928B) SamsungBrowser/28.0 Chrome/130.0": (
        "Samsung Internet/Android"
    ),
    f"{MOZILLA}(X11; CrOS x86_64 14541.0.0) {CHROME}Safari/537.36": "Chrome/ChromeOS",
    f"{MOZILLA}(X11; Linux x86_64) {CHROME}Safari/537.36 OPR/120": "Opera/Linux",
    "curl/8.5.0": "curl",
    "Something (Windows NT 10.0)": "Windows",
    "": "",
    "Chromecast without a version": "",
    "x" * MOST_READ + "Firefox/1 Linux": "",
}


@pytest.mark.parametrize(("user_agent", "device"), AGENTS.items())
def test_browser_and_system_are_found_and_nothing_else_is_kept(
    user_agent: str, device: str
) -> None:
    assert device_of(user_agent) == device


@pytest.mark.parametrize(
    ("device", "english", "german"),
    [
        ("Firefox/Linux", "Firefox on Linux", "Firefox unter Linux"),
        ("curl", "curl", "curl"),
        ("", "", ""),
        ("Your bank/Linux", "", ""),
        ("Firefox/<b>", "", ""),
    ],
)
def test_a_device_is_told_in_words_of_ours_alone(device: str, english: str, german: str) -> None:
    """The record may be another service's, or older than this version."""
    assert told_device(device, ENGLISH) == english
    assert told_device(device, built_in()["de"]) == german


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("127.0.0.1", "this machine"),
        ("::1", "this machine"),
        ("10.1.2.3", "a private network, 10.1.2.3"),
        ("fd00::1", "a private network, fd00::1"),
        ("fe80::1", "a private network, fe80::1"),
        ("8.8.8.8", "8.8.8.8"),
        ("2606:4700::1111", "2606:4700::1111"),
        ("", ""),
        ("<b>", ""),
    ],
)
def test_a_place_is_told_as_far_as_the_address_tells(address: str, place: str) -> None:
    assert told_place(address, ENGLISH) == place
