"""The platform's contract: the context from the environment, names, directory names, profiles."""

from __future__ import annotations

import dataclasses
import string
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kaapana_nb.contract import PROFILES, RunContext, profile, slug
from kaapana_nb.contract.context import RESERVED_VARIABLES
from kaapana_nb.contract.names import MAX_NAME, class_name, directory_name, is_slug
from kaapana_nb.errors import ContractError, UsageError

PLAIN = st.text(st.sampled_from(string.ascii_letters + string.digits + "._- "), min_size=1, max_size=60).filter(
    lambda name: name not in {".", ".."}
)


@given(st.lists(PLAIN, min_size=1, max_size=5), PLAIN, PLAIN, PLAIN, st.booleans())
def test_context_gives_back_what_the_platform_sets(
    run: list[str], batch: str, source: str, target: str, leading_slash: bool
) -> None:
    values = {
        "WORKFLOW_DIR": ("/" if leading_slash else "") + "/".join(run),
        "BATCH_NAME": batch,
        "OPERATOR_IN_DIR": source,
        "OPERATOR_OUT_DIR": target,
        "RUN_ID": "r",
    }
    context = RunContext.from_environ(values)
    assert context.run_dir == Path("/", *run)
    assert context.batch_dir == context.run_dir / batch
    assert (context.operator_in_dir, context.operator_out_dir) == (source, target)
    assert (context.run_id, context.dag_id, context.task_id) == ("r", None, None)
    assert dict(context.environ) == values


@pytest.mark.parametrize(
    ("profile_name", "expected"),
    [("0.1", "/data"), ("0.6", "/kaapana/mounted/data/otsus-method-261122190000000000")],
)
def test_both_profiles_workflow_dir(profile_name: str, expected: str) -> None:
    run_id = "otsus-method-261122190000000000"
    values = {"WORKFLOW_DIR": profile(profile_name).workflow_dir.format(run_id=run_id), "BATCH_NAME": "batch"}
    assert str(RunContext.from_environ(values).run_dir) == expected
    assert profile(profile_name).run_dir.format(run_id=run_id) == expected


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({}, "WORKFLOW_DIR and BATCH_NAME are"),
        ({"WORKFLOW_DIR": "data"}, "BATCH_NAME is"),
        ({"WORKFLOW_DIR": "", "BATCH_NAME": "batch"}, "WORKFLOW_DIR is"),
        ({"WORKFLOW_DIR": "data/../etc", "BATCH_NAME": "batch"}, "data/../etc"),
        ({"WORKFLOW_DIR": "data\nx", "BATCH_NAME": "batch"}, "WORKFLOW_DIR"),
        ({"WORKFLOW_DIR": "data", "BATCH_NAME": ".."}, "BATCH_NAME"),
        ({"WORKFLOW_DIR": "data", "BATCH_NAME": "batch", "OPERATOR_OUT_DIR": "../up"}, "OPERATOR_OUT_DIR"),
        ({"WORKFLOW_DIR": "data", "BATCH_NAME": "batch", "OPERATOR_IN_DIR": "/etc"}, "OPERATOR_IN_DIR"),
    ],
)
def test_broken_environment_names_the_variable(values: dict[str, str], word: str) -> None:
    with pytest.raises(ContractError) as caught:
        RunContext.from_environ(values)
    assert word in caught.value.problem
    assert caught.value.remedy


def test_secrets_of_the_environment_are_not_shown() -> None:
    values = {"WORKFLOW_DIR": "data", "BATCH_NAME": "batch", "KAAPANA_CLIENT_SECRET": "hush"}
    context = RunContext.from_environ(values)
    assert "hush" not in repr(context)
    assert context.form_value("kaapana_client_secret") == "hush"


def test_form_value_tells_empty_from_not_given() -> None:
    values = {"WORKFLOW_DIR": "data", "BATCH_NAME": "batch", "INSIDE": "", "OUTSIDE": "1"}
    context = RunContext.from_environ(values)
    assert (context.form_value("inside"), context.form_value("outside"), context.form_value("x")) == ("", "1", None)


@given(st.text(max_size=80))
def test_slug_is_a_name_or_a_usage_error(text: str) -> None:
    try:
        name = slug(text)
    except UsageError as error:
        assert repr(text) in error.problem
        return
    assert is_slug(name)
    assert len(name) <= MAX_NAME
    assert slug(name) == name
    assert class_name(name).isidentifier()


@pytest.mark.parametrize(
    ("text", "name", "operator"),
    [
        ("otsus_method", "otsus-method", "OtsusMethod"),
        ("Größe messen!", "groe-messen", "GroeMessen"),
        ("a__b--c", "a-b-c", "ABC"),
        ("x" * MAX_NAME, "x" * MAX_NAME, "X" + "x" * (MAX_NAME - 1)),
    ],
)
def test_known_slugs(text: str, name: str, operator: str) -> None:
    assert slug(text) == name
    assert class_name(name) == operator


@pytest.mark.parametrize("text", ["", "___", "batch", "conf", "1st", "日本", "x" * (MAX_NAME + 1)])
def test_no_slug(text: str) -> None:
    with pytest.raises(UsageError):
        slug(text)


@given(st.text(max_size=300))
def test_directory_name_stays_inside(value: str) -> None:
    try:
        name = directory_name(value, "OPERATOR_OUT_DIR")
    except ContractError as error:
        assert "OPERATOR_OUT_DIR" in error.problem
        return
    assert name == value
    joined = Path("/run/batch/1.2.3") / name
    assert joined.parent == Path("/run/batch/1.2.3")
    assert joined.name == value
    assert len(name.encode()) <= 255


@given(PLAIN)
def test_plain_directory_names_are_taken(value: str) -> None:
    assume(value.isprintable())
    assert directory_name(value, "BATCH_NAME") == value


def test_profiles_are_frozen_and_named_as_listed() -> None:
    for name, entry in PROFILES.items():
        assert entry.name == name
        with pytest.raises(dataclasses.FrozenInstanceError):
            entry.name = "0.7"  # type: ignore[misc]
    with pytest.raises(UsageError, match=r"0\.7"):
        profile("0.7")


def test_parameters_cannot_take_the_platform_s_variables() -> None:
    assert {"WORKFLOW_DIR", "BATCH_NAME", "OPERATOR_IN_DIR", "OPERATOR_OUT_DIR", "PATH"} <= RESERVED_VARIABLES
    assert all(name == name.upper() for name in RESERVED_VARIABLES)
