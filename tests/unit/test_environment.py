"""What a result depends on besides the code, and what is different."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.cli.results_folder import read_environment
from core.report.prose.environment import say_difference
from core.report.sheets import environment_sheet
from core.results.environment import Environment, differences

ONE = Environment(processor="a", processor_features=["avx2"], cores=2, versions={"torch": "2.13.0", "onnxruntime": "1"})


@pytest.mark.parametrize("content", ["", "[]", '{"cores": "two"}', "not JSON"])
def test_what_cannot_be_read_is_not_known(tmp_path: Path, content: str) -> None:
    (tmp_path / "environment.json").write_text(content)
    assert read_environment(tmp_path) is None
    assert list(differences(None, ONE)) == list(differences(ONE, None)) == []


def test_a_file_of_another_version_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text('{"cores": 2, "moon": "full", "versions": {"torch": "2.13.0"}}')
    found = read_environment(tmp_path)
    assert found is not None
    assert found.values == {"cores": 2, "torch": "2.13.0"}
    assert environment_sheet(found).rows == [["cores", "2"], ["torch", "2.13.0"]]


def test_what_is_different_is_told_package_by_package() -> None:
    versions = {"torch": "2.13.1", "onnxruntime": "1"}
    other = ONE.model_copy(update={"cores": 4, "processor_features": [], "versions": versions})
    assert [say_difference(each) for each in differences(ONE, other)] == [
        "processor_features became [] (was ['avx2'])",
        "cores became 4 (was 2)",
        "torch became 2.13.1 (was 2.13.0)",
    ]
