"""The cost model: its bytes and operations by hand, and what it says of image sets that were measured."""

import json

import pytest
import timm
import torch
from benchmarks.scale import MEASURED, STUDENT, TEACHER, Setting, check, cost
from torch.utils.flop_counter import FlopCounterMode


@pytest.mark.parametrize(
    ("name", "multiply_adds"), [("vit_large_patch16_224", TEACHER), ("mobilenetv3_small_050", STUDENT)]
)
def test_multiply_adds_are_those_that_torch_counts(name, multiply_adds):
    with torch.device("meta"):
        counter, model = FlopCounterMode(display=False), timm.create_model(name).eval()
        with torch.no_grad(), counter:
            model(torch.zeros(1, 3, 224, 224))
    assert counter.get_total_flops() == 2 * multiply_adds


def test_a_store_that_fits_no_disk_is_decoded_at_each_pass():
    """10^6 images, 10 passes: 250 s a pass by 4,000 decoded images a second; 50.176 s by 3 GB/s of 150,528 bytes."""
    setting = Setting(cores=10, decode_rate=400, student_epochs=10, student_rate=1e9)
    small, large = cost(10**6, setting), cost(10**6, Setting(**{**vars(setting), "disk": 1e9}))
    assert (small["stored"], large["stored"]) == (True, False)
    assert 3600 * small["hours"]["decode"] == pytest.approx(250)
    assert 3600 * small["hours"]["student"] == pytest.approx(501.76)
    assert large["hours"]["decode"] == 0
    assert 3600 * large["hours"]["student"] == pytest.approx(2500)
    assert small["targets_bytes"] == 400_000_000
    assert small["money"] == pytest.approx(3 * small["total_hours"])


def test_the_model_says_what_was_measured_of_1_000_to_60_000_images():
    held = check(json.loads(MEASURED.read_text("utf-8")))
    assert list(held["seconds"]) == list(held["store_bytes"]) == ["1000", "10000", "60000"]
    assert all(ratio == pytest.approx(1, rel=0.002) for ratio in held["store_bytes"].values())
    assert all(ratio == pytest.approx(1, rel=0.12) for ratio in held["seconds"]["60000"].values())
