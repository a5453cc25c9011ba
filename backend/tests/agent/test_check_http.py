"""`http`: what is found wrong with one before it runs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.agent.documents import issues, only
from tests.agent.http_calls import document

SECRET = {"Authorization": {"secret": "crm-token", "prefix": "Bearer "}}


@pytest.mark.parametrize(
    ("config", "pointer"),
    [
        ({"method": "FETCH"}, "/nodes/1/config/method"),
        ({"body": {"json": 1}}, "/nodes/1/config/body"),
        ({"method": "POST", "body": {"json": 1, "text": "x"}}, "/nodes/1/config/body"),
        ({"method": "POST", "body": {"text": 1}}, "/nodes/1/config/body/text"),
        ({"method": "POST", "body": {"form": []}}, "/nodes/1/config/body/form"),
        ({"method": "POST", "body": {"xml": "x"}}, "/nodes/1/config/body/xml"),
        ({"expect_status": ["2yy"]}, "/nodes/1/config/expect_status/0"),
        ({"expect_status": []}, "/nodes/1/config/expect_status"),
        ({"max_bytes": 0}, "/nodes/1/config/max_bytes"),
        ({"query": {"a": "{{ inputs..x }}"}}, "/nodes/1/config/query/a"),
        ({"headers": {"X": "{{ nobody.x }}"}}, "/nodes/1/config/headers/X"),
        ({"method": "POST", "body": {"json": ["{{ nobody.x }}"]}}, "/nodes/1/config/body/json/0"),
        ({"credential": "x"}, "/nodes/1/config/credential"),
        ({"effect": "pure"}, "/nodes/1/effect"),
        ({"method": "POST", "cache": {"ttl_s": 1}}, "/nodes/1/cache"),
        ({"cache": {"ttl_s": 1, "key": "{{ nobody.x }}"}}, "/nodes/1/cache/key"),
    ],
)
def test_find_what_is_wrong(config: dict[str, Any], pointer: str) -> None:
    assert pointer in {issue.pointer for issue in issues(document("https://a.example/", **config))}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file:///etc/passwd", "only http and https are called, not 'file'"),
        ("file:///{{ inputs.x }}", "only http and https are called, not 'file'"),
        ("not a url", "does not begin with 'http://' or 'https://'"),
        ("not a url {{ inputs.x }}", "does not begin with"),
        ("/v1/{{ inputs.x }}", "does not begin with"),
        ("http", "does not begin with"),
        ("", "does not begin with"),
        ("https://", "the host is empty"),
        ("https:///x", "the host is empty"),
        ("https://a b/{{ inputs.x }}", "'a b' cannot be called"),
        ("https://me:pw@a.example/", "holds a user name or password"),
        ("https://a.example:99999/", "'99999' is not a port"),
        ("https://2130706433/", "four decimal numbers"),
        ("https://a.example/x\ny", "control characters"),
    ],
)
def test_an_address_that_no_value_can_mend(url: str, message: str) -> None:
    issue = only(document(url))
    assert (issue.code, issue.pointer) == ("invalid_value", "/nodes/1/config/url")
    assert message in issue.message
    assert issue.fix


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example", "HTTP://[::1]:8080/x", "http{{ inputs.x }}://a.example/", "{{ inputs.x }}",
        "https://{{ inputs.x }}", "https://a.{{ inputs.x }}/", "https://bücher.example/{{ inputs.x }}",
        "https://a.example:{{ inputs.x }}/",
    ],
)  # fmt: skip
def test_an_address_that_may_become_right(url: str) -> None:
    assert issues(document(url)) == []


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("a b", "x", "'a b' is not the name of an HTTP header"),
        ("", "x", "'' is not the name of an HTTP header"),
        ("Host", "evil.example", "'Host' is set by the platform"),
        ("content-length", "3", "'content-length' is set by the platform"),
        ("X", "a\nb", "the value of the header 'X' holds line ends"),
        ("X", "{{ inputs.x }}\r\nY: 1", "the value of the header 'X' holds line ends"),
        ("X", "é", "or others than ASCII"),
        ("X", {"secret": "s", "prefix": "a\n"}, "the value of the header 'X' holds line ends"),
    ],
)
def test_a_header_that_is_never_sent(name: str, value: Any, message: str) -> None:
    issue = only(document("https://a.example/", headers={name: value}))
    assert (issue.code, issue.pointer) == ("invalid_value", f"/nodes/1/config/headers/{name}")
    assert message in issue.message


def test_what_is_wrong_with_the_whole_does_not_hide_behind_a_part() -> None:
    headers = {"Host": "x", "A": {"secret": "s"}}
    found = issues(
        document("https://{{ inputs.x }}/", headers=headers, body={"text": 1}, method="GET", max_bytes=0)
    )
    places = ["/url", "/headers/Host", "/body", "/body/text", "/max_bytes"]
    assert {issue.pointer.removeprefix("/nodes/1/config") for issue in found} == set(places)


@pytest.mark.parametrize(("effect", "cacheable"), [(None, False), ("read", True)])
def test_a_post_that_only_reads_may_be_cached(effect: str | None, cacheable: bool) -> None:
    more = {"effect": effect} if effect else {}
    found = document("https://a.example/", method="POST", cache={"ttl_s": 60}, **more)
    if cacheable:
        assert issues(found) == []
    else:
        assert only(found).code == "not_cacheable"


@pytest.mark.parametrize(
    ("url", "fixed"),
    [
        ("https://api.example/v1/{{ inputs.x }}", True),
        ("https://api.example", True),
        ("https://api.example?q={{ inputs.x }}", False),
        ("https://api.example{{ inputs.x }}/", False),
        ("https://{{ inputs.x }}/", False),
        ("{{ inputs.x }}", False),
        ("{{ inputs.x }}://api.example/", False),
        ("/v1", False),
    ],
)
def test_secrets_go_only_to_a_host_that_is_spelt_out(url: str, fixed: bool) -> None:
    found = issues(document(url, headers=SECRET))
    assert [issue.pointer for issue in found] == ([] if fixed else ["/nodes/1/config/url"])
