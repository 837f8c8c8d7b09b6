"""The Dockerfile subset: what is read, and what is refused with the builder that can."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaapana_nb.errors import BuildError, KaapanaNbError
from kaapana_nb.ship.dockerfile import Copy, PipInstall, WorkDir, parse_dockerfile, read_dockerfile

EXPORTED = """\
FROM local-only/base-python-cpu:latest
LABEL IMAGE="otsus-method"
LABEL VERSION="0.1.0"
ENV PYTHONPATH=/kaapana/packages PYTHONUNBUFFERED=1
WORKDIR /kaapana/app
COPY files/requirements.txt /kaapana/app/requirements.txt
COPY files/wheels /kaapana/app/wheels
RUN python3 -m pip install --no-cache-dir --no-compile --no-deps --target /kaapana/packages -r requirements.txt
CMD ["python3", "-m", "kaapana_nb", "execute", "/kaapana/app/otsus_method.ipynb"]
"""


def test_an_exported_dockerfile():
    parsed = parse_dockerfile(EXPORTED)
    assert str(parsed.base) == "local-only/base-python-cpu:latest"
    assert parsed.labels == {"IMAGE": "otsus-method", "VERSION": "0.1.0"}
    assert parsed.env == {"PYTHONPATH": "/kaapana/packages", "PYTHONUNBUFFERED": "1"}
    assert [step for _, step in parsed.steps] == [
        WorkDir(path="/kaapana/app"),
        Copy(sources=("files/requirements.txt",), target="/kaapana/app/requirements.txt", into_directory=False),
        Copy(sources=("files/wheels",), target="/kaapana/app/wheels", into_directory=False),
        PipInstall(requirements="/kaapana/app/requirements.txt", target="/kaapana/packages"),
    ]
    assert parsed.cmd == ("python3", "-m", "kaapana_nb", "execute", "/kaapana/app/otsus_method.ipynb")
    assert parsed.entrypoint is None


def test_quotes_continuations_and_comments():
    parsed = parse_dockerfile(
        "# a comment\nFROM base:1\nLABEL a=\"two words\" \\\n  # inside\n  b='x y'\nENV P=\\$HOME\n"
        'COPY ["a b", "c", "/d/"]\nUSER 1000:1000\nEXPOSE 8080 9/udp\nENTRYPOINT ["x"]\n'
        'HEALTHCHECK --interval=5s --retries=3 CMD ["python3", "-c", "pass"]\n'
    )
    assert parsed.labels == {"a": "two words", "b": "x y"}
    assert parsed.env == {"P": "$HOME"}
    assert parsed.steps[0][1] == Copy(sources=("a b", "c"), target="/d", into_directory=True)
    assert parsed.user == "1000:1000"
    assert parsed.exposed_ports == ("8080/tcp", "9/udp")
    assert parsed.entrypoint == ("x",)
    assert parsed.healthcheck == {"Test": ["CMD", "python3", "-c", "pass"], "Interval": 5_000_000_000, "Retries": 3}


@pytest.mark.parametrize(
    "line",
    [
        "RUN apt-get install -y git",
        "RUN python3 -m pip install numpy",
        "RUN python3 -m pip install --no-compile --no-deps --target /x -r r.txt && rm -rf /",
        "RUN python3 -m pip install --no-compile --no-deps --target /x -r r.txt; true",
        "RUN python3 -m pip install --no-deps --target /x -r r.txt",
        "RUN python3 -m pip install --no-compile --no-deps --target $HOME -r r.txt",
        "COPY --from=other /a /b",
        "COPY ../secret /b",
        "COPY /etc/passwd /b",
        "COPY files/* /b",
        "COPY onlyone",
        "ADD https://example.org/x /x",
        "FROM other:1",
        "ARG X=1",
        "ENV A=$B",
        "ENV A",
        "CMD python3 app.py",
        "CMD []",
        "USER $(id)",
        "EXPOSE eighty",
        'SHELL ["/bin/bash"]',
        "HEALTHCHECK NONE",
        "# syntax=docker/dockerfile:1",
    ],
)
def test_refused_lines_name_the_builder_that_can(line):
    with pytest.raises(BuildError) as caught:
        parse_dockerfile(f"FROM base:1\n{line}\n")
    assert "--builder buildah" in caught.value.remedy
    assert "line 2" in caught.value.problem


@pytest.mark.parametrize("text", ["", "LABEL a=b\n", "# nothing\n", "FROM a:1 \\\n"])
def test_no_base(text):
    with pytest.raises(BuildError):
        parse_dockerfile(text)


@given(st.text(max_size=300))
def test_any_text_gives_a_value_or_our_error(text):
    try:
        parse_dockerfile("FROM base:1\n" + text)
    except KaapanaNbError as error:
        assert error.problem
        assert error.remedy


def test_files_that_are_none(tmp_path):
    with pytest.raises(BuildError, match="no readable Dockerfile"):
        read_dockerfile(tmp_path)
    (tmp_path / "Dockerfile").write_bytes(b"FROM a:1\n\xff")
    with pytest.raises(BuildError, match="UTF-8"):
        read_dockerfile(tmp_path)
    (tmp_path / "Dockerfile").write_bytes(b"#" * 300_000)
    with pytest.raises(BuildError, match="larger than"):
        read_dockerfile(tmp_path)
