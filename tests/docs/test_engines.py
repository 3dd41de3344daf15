"""What stands in for docker and kubectl takes what fits our files, and refuses what does not."""

from __future__ import annotations

import shlex

import pytest

from tests.docs.engines import main

FITTING = (
    "docker compose up -d --wait",
    "docker compose --profile all up -d --scale worker-order=4 --wait",
    "docker compose down --volumes",
    "docker compose stop worker-order",
    "docker build --build-arg BASE=python:3.11-slim --tag penstock .",
    "kubectl create namespace penstock",
    "kubectl --namespace penstock create secret generic penstock --from-literal=postgres=x"
    " --from-file=outside.json",
    "kubectl --namespace penstock create secret generic penstock-variables --from-literal=A=b",
    "kubectl apply -k example/run",
    "kubectl --namespace penstock port-forward service/web 8080:80",
    "kubectl --namespace penstock rollout restart deployment",
)
WRONG = (
    "docker compose --profile none up -d",
    "docker compose up -d --scale worker-nobody=4",
    "docker compose up -d --scale web=4",
    "docker compose stop nobody",
    "docker build --build-arg BSAE=python --tag penstock .",
    "docker run --read-only penstock catalog check",
    "docker run --volume shop:/home penstock catalog check",
    "docker run --publish 80:81 penstock catalog check",
    "docker run --stop-timeout 5 penstock catalog check",
    "kubectl --namespace penstock create secret generic penstock --from-literal=postgers=x",
    "kubectl --namespace penstock create secret generic nobody --from-literal=a=b",
    "kubectl --namespace penstock port-forward service/web 8080:81",
)
UNKNOWN = (
    "docker run --privileged penstock catalog check",
    "docker build --tag other .",
    "kubectl --namespace other rollout status deployment",
    "kubectl apply -k example/nowhere",
    "kubectl --namespace penstock delete job nobody",
)


@pytest.mark.parametrize("command", FITTING)
def test_what_fits_is_taken(command: str) -> None:
    assert main(*shlex.split(command)) == 0


@pytest.mark.parametrize("command", WRONG)
def test_what_does_not_fit_is_refused_with_the_reason(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(*shlex.split(command)) == 1
    assert capsys.readouterr().err.startswith(command[:12])


@pytest.mark.parametrize("command", UNKNOWN)
def test_words_that_are_not_known_are_refused(command: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(*shlex.split(command))
    assert ended.value.code == 2
