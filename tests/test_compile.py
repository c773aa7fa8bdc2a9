"""torch.compile as an option: it trains what it should, or is refused before anything is trained."""

import shutil

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from subclass_kd import SubclassHierarchy, build
from subclass_kd.augment import Views
from subclass_kd.config import Augment, Student, Study
from subclass_kd.data.samples import load_samples
from subclass_kd.errors import UserError
from subclass_kd.study_file import make_study
from subclass_kd.training import Lesson, Pixels, train


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs g++ on a CPU")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of torch's own making
def test_a_compiled_network_learns_what_the_plain_one_does():
    """As small as can be: compiling a convolution takes half a minute."""
    images = torch.randint(0, 256, (48, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = Pixels(images.numpy(), torch.arange(32), torch.arange(32, 48), positive=1)
    lesson = Lesson(SubclassHierarchy.identity(["a", "b"]), torch.arange(48) % 2)
    histories = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        network = Student(epochs=3, batch_size=8, learning_rate=0.01, compile=compiled)
        fabric = Fabric(accelerator="cpu", devices=1)
        histories.append(train(model, lesson, pixels, Views(0, 1, Augment()), network, fabric, seed=1)[1])
    plain, same = ([epoch.loss for epoch in history] for history in histories)
    assert same == pytest.approx(plain, rel=1e-4)


def test_a_model_that_does_not_compile_is_refused_with_the_key(monkeypatch):
    def fail(model):
        raise RuntimeError("no working C++ compiler\nlong story")

    monkeypatch.setattr(torch, "compile", fail)
    samples = load_samples(make_study({}))
    with pytest.raises(UserError) as caught:
        build._check_model(Study(device="cpu"), Student(compile=True), "student", 10, samples)
    assert caught.value.where == 'key "student.compile"'
    assert "no working C++ compiler" in caught.value.found
    assert "long story" not in str(caught.value)
    assert caught.value.remedy == "Set it to false."
