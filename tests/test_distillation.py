import pytest
import torch
from bundle.distillation import ConsensusFieldd, TemplateTeacher
from bundle.fields import warp
from bundle.losses import DistillationLoss, RegistrationLoss
from monai.bundle import ConfigParser
from torch import nn

SHAPE = (16, 32, 16)


class CubeOfDifference(nn.Module):
    """Shifts along axis 1 by the cube of what the images' means differ by: the way through a template is another."""

    def forward(self, image):
        ddf = torch.zeros(1, 3, *image.shape[2:])
        ddf[:, 1] = (image[:, 0].mean() - image[:, 1].mean()) ** 3
        return torch.cat([warp(image[:, :1], ddf, padding="border"), ddf], 1)


@pytest.fixture
def weights(tmp_path):
    torch.save({}, tmp_path / "none.pt")
    return str(tmp_path / "none.pt")


def flat(*values):
    return [{"image": torch.full((1, *SHAPE), float(value))} for value in values]


def test_the_teachers_field_is_the_mean_of_both_ways(weights):
    teacher = TemplateTeacher(CubeOfDifference(), weights, view=lambda image: image)
    template = teacher.prepare(flat(0.0, 1.0, 3.5))
    assert template.shape == (1, 1, *SHAPE)
    assert torch.allclose(template, torch.tensor(1.5))  # warping flat images changes nothing
    direct, by_template = (0.0 - 3.5) ** 3, (0.0 - 1.5) ** 3 + (1.5 - 3.5) ** 3
    field = teacher(0, 2)
    assert field.shape == (1, 3, *SHAPE)
    assert torch.allclose(field[:, 1], torch.tensor((direct + by_template) / 2), rtol=1e-3)
    assert not field[:, ::2].any()


def test_the_teacher_sees_the_view_of_an_image(weights):
    teacher = TemplateTeacher(CubeOfDifference(), weights, view=lambda image: image / 2)
    assert torch.allclose(teacher.prepare(flat(2.0, 4.0)), torch.tensor(1.5))


def test_a_template_is_made_of_members_spread_over_the_images(weights):
    teacher = TemplateTeacher(CubeOfDifference(), weights, view=lambda image: image, members=2)
    assert torch.allclose(teacher.prepare(flat(0.0, 9.0, 1.0, 9.0)), torch.tensor(0.5))
    assert len(teacher.to_template) == len(teacher.from_template) == 4


def test_the_label_is_the_fixed_image_and_the_teachers_field():
    fixed = torch.rand(1, *SHAPE)
    item = {"fixed": fixed, "moving_index": 4, "fixed_index": 7}
    label = ConsensusFieldd(lambda moving, fixed: torch.full((1, 3, *SHAPE), 10.0 * moving + fixed))(item)["label"]
    assert torch.equal(label[:1], fixed)
    assert torch.equal(label[1:], torch.full((3, *SHAPE), 47.0))


def test_the_loss_is_equation_1_and_the_mean_distance_to_the_teacher():
    pred, fixed = torch.rand(2, 4, *SHAPE), torch.rand(2, 1, *SHAPE)
    teacher = pred[:, 1:] + torch.tensor([2.0, 3.0, 6.0]).view(3, 1, 1, 1)  # 7 voxels away
    expected = RegistrationLoss(alpha=0.5)(pred, fixed) + 0.25 * 7
    loss = DistillationLoss(alpha=0.5, weight=0.25)(pred, torch.cat([fixed, teacher], 1))
    assert float(loss) == pytest.approx(float(expected), abs=1e-5)


def test_the_loss_has_a_gradient_where_student_and_teacher_agree():
    pred = torch.rand(1, 4, *SHAPE).requires_grad_()
    DistillationLoss()(pred, torch.cat([torch.rand(1, 1, *SHAPE), pred.detach()[:, 1:]], 1)).backward()
    assert pred.grad.isfinite().all()


def test_the_configuration_gives_each_pair_the_field_of_its_teacher(bundle_root, small_dataset, shifting_weights):
    config = ConfigParser()
    config.read_config([str(bundle_root / f"configs/{name}.json") for name in ("train", "distil")])
    config.update({"bundle_root": str(bundle_root), "dataset_dir": str(small_dataset), "pretrained": shifting_weights})
    dataset, teacher = config.get_parsed_content("train#dataset"), config.get_parsed_content("teacher")
    teacher.prepare(dataset.images)
    dataset.set_random_state(0)
    item = dataset[1]
    assert item["image"].shape[0] == 2
    assert item["label"].shape[0] == 4
    assert torch.equal(item["label"][0], item["image"][1])
    asked = [teacher(moving, 1)[0] for moving in (0, 2)]
    assert any(torch.allclose(item["label"][1:], field, atol=1e-4) for field in asked)
    assert not torch.allclose(asked[0], asked[1], atol=1e-4)
    network = config.get_parsed_content("network").train()
    loss = config.get_parsed_content("loss")(network(item["image"][None]), item["label"][None])
    assert loss.isfinite()
