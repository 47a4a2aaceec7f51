from __future__ import annotations

import re
from typing import Any

import pytest

from ..services import require_program
from .files import DEPLOY, PROJECT, load, run

RULES = DEPLOY / "prometheus" / "rules.yml"
CASES = sorted((DEPLOY / "prometheus").glob("*_test.yml"))
ALERTS = [rule for group in load(RULES)["groups"] for rule in group["rules"] if "alert" in rule]


def test_the_rules_fire_when_they_should_and_only_then() -> None:
    promtool = require_program("promtool")
    run(promtool, "check", "rules", RULES)
    run(promtool, "test", "rules", *CASES)


def test_every_alert_has_a_test_that_it_fires_and_one_that_it_does_not() -> None:
    fires: dict[str, set[bool]] = {}
    for case in [case for path in CASES for case in load(path)["tests"]]:
        for expected in case.get("alert_rule_test", []):
            fires.setdefault(expected["alertname"], set()).add(bool(expected["exp_alerts"]))
    assert fires == {rule["alert"]: {True, False} for rule in ALERTS}


def test_alertmanager_takes_its_configuration() -> None:
    amtool = require_program("amtool")
    configuration = DEPLOY / "alertmanager" / "alertmanager.yml"
    run(amtool, "check-config", configuration)
    for severity, receiver in (("critical", "on-call"), ("warning", "team")):
        route = run(
            amtool,
            "config",
            "routes",
            "test",
            f"--config.file={configuration}",
            f"severity={severity}",
        )
        assert route.stdout.split()[-1] == receiver


def test_prometheus_takes_its_configuration() -> None:
    promtool = require_program("promtool")
    run(promtool, "check", "config", "--syntax-only", DEPLOY / "prometheus" / "prometheus.yml")


def test_the_cluster_has_the_same_rules() -> None:
    cluster = load(DEPLOY / "kubernetes" / "base" / "prometheusrule.yaml")
    assert cluster["spec"] == load(RULES), "run `make rules`"


def test_the_runbook_says_what_to_do_for_each_alert() -> None:
    text = (PROJECT / "docs" / "runbook.md").read_text(encoding="utf-8")
    sections = re.findall(r"^### (\w+)$", text, re.MULTILINE)
    assert sections == [rule["alert"] for rule in ALERTS]


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_names_its_page_of_the_runbook(rule: Any) -> None:
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
    assert rule["labels"]["severity"] in {"critical", "warning"}
