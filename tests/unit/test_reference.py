"""Image references: what is printed is parsed back, and what is no reference is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaapana_nb.errors import UsageError
from kaapana_nb.reference import ImageReference, is_digest

DIGEST = "sha256:" + "0123456789abcdef" * 4

components = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,2})[a-z0-9]{1,8}){0,2}", fullmatch=True)
repositories = st.lists(components, min_size=1, max_size=4).map("/".join)
hosts = st.one_of(
    st.just("localhost"),
    st.from_regex(r"[a-z0-9]{1,8}(\.[a-z0-9]{1,8}){1,3}", fullmatch=True),
    st.from_regex(r"[a-z0-9]{1,8}:[0-9]{1,5}", fullmatch=True),
    st.just("[::1]:5000"),
)
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", fullmatch=True)


def has_no_registry_look(repository: str) -> bool:
    first, slash, _ = repository.partition("/")
    return not slash or ("." not in first and first != "localhost")


@st.composite
def references(draw: st.DrawFn) -> ImageReference:
    registry = draw(st.one_of(st.just(""), hosts))
    repository = draw(repositories if registry else repositories.filter(has_no_registry_look))
    digest = draw(st.one_of(st.just(""), st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)))
    return ImageReference(
        registry=registry, repository=repository, tag=draw(st.one_of(st.just(""), tags)), digest=digest
    )


@given(references())
def test_parse_of_str_is_the_reference(reference: ImageReference) -> None:
    assert ImageReference.parse(str(reference)) == reference


@given(st.text(max_size=60))
def test_any_text_is_a_reference_that_prints_as_it_was_or_a_usage_error(text: str) -> None:
    try:
        reference = ImageReference.parse(text)
    except UsageError:
        return
    assert str(reference) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "Upper/case", "name:", "name@", "name@sha256:abc", "name:tag:tag", "a//b", "/name", "name/", "-name",
        "name:-tag", "host:123456/name", "host.example/", "name@md5:" + "0" * 32, "name\n", "name:tag\n", "a" * 256,
        f"name@{DIGEST}@{DIGEST}", "na me", "../name",
    ],
)  # fmt: skip
def test_no_reference(text: str) -> None:
    with pytest.raises(UsageError):
        ImageReference.parse(text)


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("otsus-method", "", "otsus-method", "", ""),
        ("local-only/base-python-cpu:latest", "", "local-only/base-python-cpu", "latest", ""),
        ("localhost/base:1", "localhost", "base", "1", ""),
        ("127.0.0.1:5000/a/b:kp_0.1.3__1.0.0", "127.0.0.1:5000", "a/b", "kp_0.1.3__1.0.0", ""),
        (f"registry.example/a:1@{DIGEST}", "registry.example", "a", "1", DIGEST),
        (f"[::1]:5000/a@{DIGEST}", "[::1]:5000", "a", "", DIGEST),
    ],
)
def test_known_references(text: str, registry: str, repository: str, tag: str, digest: str) -> None:
    expected = ImageReference(registry=registry, repository=repository, tag=tag, digest=digest)
    assert ImageReference.parse(text) == expected


def test_tag_and_digest_are_replaced() -> None:
    reference = ImageReference.parse(f"localhost:5000/group/name:1@{DIGEST}")
    assert str(reference.with_tag("2")) == "localhost:5000/group/name:2"
    assert str(reference.with_tag("2").with_digest(DIGEST)) == f"localhost:5000/group/name:2@{DIGEST}"
    assert reference.name == "name"


def test_digest_is_lower_case_sha256_of_full_length() -> None:
    assert is_digest(DIGEST)
    assert not is_digest(DIGEST.upper())
    assert not is_digest(DIGEST[:-1])
    assert not is_digest(DIGEST + "\n")
