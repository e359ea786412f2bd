# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of the files for GitHub: workflow, issue forms, pre-commit hooks, citation and changelog."""

import os
import pathlib
import re

import pytest
import yaml

from efficientdet.config import VERSION

ROOT = pathlib.Path(__file__).parents[1]
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
CHANGES = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


def read(path: str | pathlib.Path):
    return yaml.safe_load((ROOT / path).read_text())


def test_the_workflow_runs_the_checks_of_both_lanes():
    job = read(".github/workflows/ci.yml")["jobs"]["test"]
    [python] = [step["with"] for step in job["steps"] if step.get("uses", "").startswith("actions/setup-python@")]
    lanes = re.findall(r"^if have python([\d.]+); then$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert python["python-version"].split() == lanes == ["3.11", "3.13"]
    assert all(list(ROOT.glob(pattern)) for pattern in python["cache-dependency-path"].split())
    assert job["steps"][-1] == {"run": ".ci/run"} and os.access(ROOT / ".ci/run", os.X_OK)
    assert job["timeout-minutes"] == 90


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_issue_forms_have_unique_fields(path):
    form = read(path)
    assert form["name"] and form["description"]
    ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert ids and len(ids) == len(set(ids))
    assert all(field["attributes"].get("label") for field in form["body"] if "id" in field)


def test_bug_reports_require_command_output_and_versions():
    fields = {field.get("id"): field for field in read(".github/ISSUE_TEMPLATE/bug_report.yml")["body"]}
    required = {name for name, field in fields.items() if field.get("validations", {}).get("required")}
    assert required >= {"command", "output", "versions"}
    assert "python main.py --version" in fields["versions"]["attributes"]["description"]
    assert f"efficientdet-tf2 {VERSION}, " in fields["versions"]["attributes"]["placeholder"]
    assert "python main.py --version" in (ROOT / ".github/pull_request_template.md").read_text()


def test_pre_commit_runs_the_ruff_of_make_lint():
    [repository] = read(".pre-commit-config.yaml")["repos"]
    assert [hook["id"] for hook in repository["hooks"]] == ["ruff-check", "ruff-format"]
    for path in ROOT.glob("constraints-*.txt"):
        assert f"\nruff=={repository['rev'].removeprefix('v')}\n" in path.read_text(), path.name


def test_the_citation_names_paper_and_version():
    citation = read("CITATION.cff")
    paper = citation["preferred-citation"]
    assert citation["version"] == VERSION and citation["license"] == "Apache-2.0"
    assert paper["url"] == "https://arxiv.org/abs/1911.09070"
    assert [author["family-names"] for author in paper["authors"]] == ["Tan", "Pang", "Le"]


def test_the_changelog_has_the_form_of_keep_a_changelog():
    text = (ROOT / "CHANGELOG.md").read_text()
    releases = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert all(re.fullmatch(r"\[[\d.]+\] - (unreleased|\d{4}-\d\d-\d\d)|\[Unreleased\]", title) for title in releases)
    [latest, *_] = [title for title in releases if title != "[Unreleased]"]
    assert latest.startswith(f"[{VERSION}] - ")
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= set(CHANGES)
