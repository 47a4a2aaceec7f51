from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from <<cookiecutter.package_name>>.cli import app

from ..services import missing, require_program
from .files import DEPLOY, PROJECT, SLUG, load, run

OVERLAYS = ("dev", "staging", "production")
CUSTOM_KINDS = {"ExternalSecret", "PrometheusRule", "ServiceMonitor"}
Objects = dict[tuple[str, str], Any]


@pytest.fixture(scope="module")
def kubectl() -> str:
    path = require_program("kubectl")
    version = json.loads(run(path, "version", "--client", "--output=json").stdout)
    if not str(version.get("kustomizeVersion", "")).startswith("v5"):
        missing("kubectl is too old: its kustomize is not version 5")
    return path


def built(kubectl: str, overlay: Path) -> Objects:
    documents = yaml.safe_load_all(run(kubectl, "kustomize", overlay).stdout)
    return {(item["kind"], item["metadata"]["name"]): item for item in documents}


@pytest.fixture(scope="module", params=OVERLAYS)
def objects(request: pytest.FixtureRequest, kubectl: str) -> Objects:
    return built(kubectl, DEPLOY / "kubernetes" / "overlays" / request.param)


@pytest.fixture(scope="module")
def production(kubectl: str) -> Objects:
    return built(kubectl, DEPLOY / "kubernetes" / "overlays" / "production")


def test_every_object_is_valid(objects: Objects) -> None:
    custom = set()
    for (kind, _), item in objects.items():
        try:
            kubernetes_validate.validate(item, "1.35", strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            custom.add(kind)
    assert custom == CUSTOM_KINDS


def test_an_unknown_field_is_found(production: Objects) -> None:
    broken = {**production["Service", "server"], "specs": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.35", strict=True)


def test_images_are_named_by_digest_where_it_is_asked_for(kubectl: str, tmp_path: Path) -> None:
    shutil.copy(PROJECT / "Makefile", tmp_path)
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    digest = "sha256:" + "1" * 64
    images = {name: f"registry.example.com/a/{name}@{digest}" for name in ("server", "jobs")}
    given = [f"{name.upper()}={image}" for name, image in images.items()]
    run("make", "-C", tmp_path, "pin", *given, "OVERLAYS=staging")
    for overlay, named in (("staging", True), ("production", False)):
        folder = tmp_path / "deploy" / "kubernetes" / "overlays" / overlay
        found = {c["image"] for pod in pods(built(kubectl, folder)) for c in pod["containers"]}
        assert (found <= set(images.values())) is named
        assert len(found) == len(images)
    wrong = run("make", "-C", tmp_path, "pin", *given, "OVERLAYS=nowhere", check=False)
    assert wrong.returncode != 0
    assert "no overlay nowhere" in wrong.stdout


def test_everything_lies_in_one_namespace_that_restricts_pods(objects: Objects) -> None:
    [namespace] = [item for (kind, _), item in objects.items() if kind == "Namespace"]
    labels = namespace["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    others = [
        item["metadata"]["namespace"] for (kind, _), item in objects.items() if kind != "Namespace"
    ]
    assert set(others) == {namespace["metadata"]["name"]}


def pods(objects: Objects) -> list[Any]:
    found = [
        item["spec"]["template"]["spec"]
        for (kind, _), item in objects.items()
        if kind == "Deployment"
    ]
    for (kind, _), item in objects.items():
        if kind == "CronJob":
            found.append(item["spec"]["jobTemplate"]["spec"]["template"]["spec"])
    assert len(found) == 5
    return found


def test_no_pod_has_rights(objects: Objects) -> None:
    for pod in pods(objects):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        assert ("ServiceAccount", pod["serviceAccountName"]) in objects
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"].keys() == {"requests", "limits"}


def test_names_that_objects_give_each_other_exist(objects: Objects) -> None:
    secrets = {
        item["spec"]["target"]["name"]
        for (kind, _), item in objects.items()
        if kind == "ExternalSecret"
    }
    for pod in pods(objects):
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            for source in container["envFrom"]:
                if "configMapRef" in source:
                    assert ("ConfigMap", source["configMapRef"]["name"]) in objects
                else:
                    assert source["secretRef"]["name"] in secrets
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted <= {volume["name"] for volume in pod["volumes"]}
        for volume in pod["volumes"]:
            claim = volume.get("persistentVolumeClaim")
            assert claim is None or ("PersistentVolumeClaim", claim["claimName"]) in objects


def test_who_selects_the_server_finds_it(objects: Objects) -> None:
    deployment = objects["Deployment", "server"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"].items() <= labels.items()
    service = objects["Service", "server"]
    assert service["spec"]["selector"].items() <= labels.items()
    [server] = deployment["template"]["spec"]["containers"]
    assert [port["name"] for port in server["ports"]] == ["http"]
    monitor = objects["ServiceMonitor", "server"]["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [end["port"] for end in monitor["endpoints"]] == [
        port["name"] for port in service["spec"]["ports"]
    ]
    for name in ("server", "registry-and-stores"):
        policy = objects["NetworkPolicy", name]["spec"]["podSelector"]
        assert policy.get("matchLabels", {}).items() <= labels.items()


def test_the_server_reaches_the_feature_server(objects: Objects) -> None:
    [server] = objects["Deployment", "server"]["spec"]["template"]["spec"]["containers"]
    address = urlsplit(
        {item["name"]: item.get("value") for item in server["env"]}["ML_FEATURE_SERVER"]
    )
    service = objects["Service", address.hostname]["spec"]
    template = objects["Deployment", "features"]["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    [port], [container] = service["ports"], template["spec"]["containers"]
    [opened] = container["ports"]
    assert (port["port"], port["targetPort"]) == (address.port, opened["name"])
    assert str(opened["containerPort"]) in container["args"]
    for kind, rule, end in (("server", "egress", "to"), ("features", "ingress", "from")):
        [allowed] = objects["NetworkPolicy", kind]["spec"][rule]
        [peer] = allowed[end]
        other = "features" if kind == "server" else "server"
        found = objects["Deployment", other]["spec"]["template"]["metadata"]["labels"]
        assert peer["podSelector"]["matchLabels"].items() <= found.items()
        assert [item["port"] for item in allowed["ports"]] == [opened["name"]]


def test_the_sidecar_reads_the_servers_experiment(production: Objects) -> None:
    pod = production["Deployment", "server"]["spec"]["template"]["spec"]
    mounts = [
        {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        for container in (*pod["initContainers"], *pod["containers"])
    ]
    assert len({(mount["/data"], mount["/served"]) for mount in mounts}) == 1


def test_probes_ask_what_the_server_answers(objects: Objects) -> None:
    [server] = objects["Deployment", "server"]["spec"]["template"]["spec"]["containers"]
    asked = {name: server[name]["httpGet"]["path"] for name in server if name.endswith("Probe")}
    assert asked == {"startupProbe": "/live", "livenessProbe": "/live", "readinessProbe": "/ready"}


def test_production_survives_the_loss_of_a_node(production: Objects) -> None:
    scaler = production["HorizontalPodAutoscaler", "server"]["spec"]
    assert scaler["minReplicas"] == 3
    assert production["PodDisruptionBudget", "server"]["spec"]["maxUnavailable"] == 1
    assert "replicas" not in production["Deployment", "server"]["spec"]


def test_commands_of_containers_exist(production: Objects) -> None:
    for pod in pods(production):
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            command: Any = get_command(app)
            for word in container["args"]:
                if hasattr(command, "commands"):
                    command = command.commands[word]
                elif command.context_settings.get("ignore_unknown_options"):
                    break  # the rest is another program's
                elif word.startswith("--"):
                    assert any(word in parameter.opts for parameter in command.params), word


def test_settings_exist(production: Objects) -> None:
    known = (PROJECT / ".env.example").read_text(encoding="utf-8")
    [settings] = [item for (kind, _), item in production.items() if kind == "ConfigMap"]
    for name in settings["data"]:
        assert f"# {name}=" in known


def test_production_is_pinned_by_digest(kubectl: str, tmp_path: Path) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    shutil.copy(PROJECT / "Makefile", tmp_path)
    server, jobs = (
        f"ghcr.io/me/{name}@sha256:{letter * 64}" for name, letter in (("s", "a"), ("j", "b"))
    )
    run("make", "pin", f"SERVER={server}", f"JOBS={jobs}", cwd=tmp_path)
    objects = built(kubectl, tmp_path / "deploy" / "kubernetes" / "overlays" / "production")
    images = [
        container["image"]
        for pod in pods(objects)
        for container in [*pod.get("initContainers", []), *pod["containers"]]
    ]
    assert set(images) == {server, jobs}
    refused = run("make", "pin", "SERVER=name:latest", cwd=tmp_path, check=False)
    assert refused.returncode != 0


def test_the_program_is_the_projects() -> None:
    assert SLUG in (PROJECT / "Dockerfile").read_text(encoding="utf-8")
    assert load(DEPLOY / "kubernetes" / "base" / "kustomization.yaml")["kind"] == "Kustomization"
