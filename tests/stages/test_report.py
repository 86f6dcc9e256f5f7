"""Which runs the report shows."""

from stages.report import leading_runs
from tests.studies.test_seeds import configs


def test_a_capsnet_leads_its_task():
    runs = configs(
        cnn={"task": "mnist", "network": "baseline"},
        first={"task": "mnist"},
        second={"task": "mnist", "iterations": 1},
        only={"task": "multimnist", "network": "baseline"},
    )
    assert leading_runs(runs) == ["first", "only"]
