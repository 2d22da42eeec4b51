import pytest

from auth.io.address import StoreAddress, StoreURLError, parse_store_url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("unix:///run/s.sock", StoreAddress("single", path="/run/s.sock")),
        ("redis://h", StoreAddress("single", hosts=(("h", 6379),))),
        (
            "redis://u:p%40ss@h:1/2",
            StoreAddress("single", hosts=(("h", 1),), username="u", password="p@ss", database=2),
        ),
        (
            "rediss://:p@[::1]:7",
            StoreAddress("single", hosts=(("::1", 7),), password="p", tls=True),
        ),
        (
            "redis+sentinel://u:p@a/main?sentinel_username=s&sentinel_password=q&tls=true",
            StoreAddress(
                "sentinel",
                hosts=(("a", 26379),),
                primary="main",
                username="u",
                password="p",
                tls=True,
                sentinel_username="s",
                sentinel_password="q",
            ),
        ),
        (
            "redis+sentinel://a,b:2/main/3",
            StoreAddress("sentinel", hosts=(("a", 26379), ("b", 2)), primary="main", database=3),
        ),
        (
            "redis+cluster://a:1,b:2?tls=true",
            StoreAddress("cluster", hosts=(("a", 1), ("b", 2)), tls=True),
        ),
    ],
)
def test_a_url_is_taken_apart(url: str, address: StoreAddress) -> None:
    assert parse_store_url(url) == address


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://secret@h", "must begin with"),
        ("redis://", "names no host"),
        ("redis://:secret@h:x", "no number"),
        ("redis://:secret@h/x", "no number"),
        ("redis://a:1,b:2", "takes one host"),
        ("redis+sentinel://:secret@h", "name of the primary"),
        ("redis+cluster://h/1", "one database"),
        ("unix:relative", "absolute path"),
    ],
)
def test_a_bad_url_is_refused_without_its_password(url: str, problem: str) -> None:
    with pytest.raises(StoreURLError, match=problem) as error:
        parse_store_url(url)
    assert "secret" not in str(error.value)


def test_an_address_does_not_show_its_password() -> None:
    assert "secret" not in repr(parse_store_url("redis://u:secret@h"))
