"""What is written twice says the same: values, schema, tables, images. No helm needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from shardline.controller import contract

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts/shardline"
CRD = yaml.safe_load((CHART / "crds/models.shardline.dev.yaml").read_text())


def paths(values: Any, at: str = "") -> set[str]:
    if not isinstance(values, dict) or not values:
        return {at}
    return {path for key, value in values.items() for path in paths(value, f"{at}.{key}")}


def known(schema: dict[str, Any], path: str) -> bool:
    """Whether the schema names the value, or ends in an open map before it."""
    for key in path.strip(".").split("."):
        if "$ref" in schema or schema.get("additionalProperties", {}) is not False:
            return "properties" not in schema
        if key not in schema["properties"]:
            return False
        schema = schema["properties"][key]
    return True


def test_every_value_is_in_the_strict_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert [path for path in paths(values) if not known(schema, path)] == []
    assert schema["additionalProperties"] is False


def test_the_tables_are_up_to_date() -> None:
    subprocess.run([sys.executable, str(ROOT / "deploy/reference.py"), "--check"], check=True)


def test_the_dockerfile_is_what_the_description_says() -> None:
    subprocess.run([sys.executable, str(ROOT / "deploy/images/build.py"), "dockerfile", "--check"], check=True)


def test_the_crd_is_the_one_that_the_controller_reads() -> None:
    assert CRD["metadata"]["name"] == f"{contract.PLURAL}.{contract.GROUP}"
    assert CRD["spec"]["names"]["kind"] == contract.KIND
    assert [version["name"] for version in CRD["spec"]["versions"]] == [contract.VERSION]


def test_every_field_of_the_crd_has_a_description() -> None:
    def silent(schema: dict[str, Any], at: str) -> list[str]:
        found = []
        for name, field in schema.get("properties", {}).items():
            described = "description" in field or at.endswith(("tolerations[]", "resources"))
            found += [] if described else [f"{at}.{name}"]
            found += silent(field, f"{at}.{name}") + silent(field.get("items", {}), f"{at}.{name}[]")
        return found

    schema = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert silent(schema["properties"]["spec"], "spec") + silent(schema["properties"]["status"], "status") == []


def test_every_right_of_the_controller_says_why() -> None:
    lines = (CHART / "templates/controller/rbac.yaml").read_text().splitlines()
    rules = [at for at, line in enumerate(lines) if line.startswith("  - apiGroups:")]
    assert rules
    assert [lines[at] for at in rules if not lines[at - 1].strip().startswith("#")] == []
