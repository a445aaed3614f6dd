"""AutoAugment, RandAugment and population-based augmentation, per image, with torchvision's operations."""

import pytest
import torch
from torchvision.transforms import AutoAugment as PublishedAuto
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode
from torchvision.transforms import RandAugment as PublishedRand
from torchvision.transforms.autoaugment import _apply_op

from sslcourse.data import policies
from sslcourse.data.policies import OPERATIONS, AutoAugment, Program, RandAugment, magnitudes, operate, run_program
from sslcourse.data.population import (
    LISTED,
    PopulationPolicy,
    exploit,
    explore,
    population_based_augmentation,
    random_policy,
)
from sslcourse.data.rng import step_generator
from sslcourse.errors import InputError


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randint(256, (12, 3, 20, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_torchvisions(name: str, x: torch.Tensor) -> None:
    published = PublishedAuto()._augmentation_space(10, (20, 28)) | PublishedRand()._augmentation_space(10, (20, 28))
    table, signed = published[name]
    values = magnitudes(name, 10, 20, 28)
    torch.testing.assert_close(values, table.double().expand(10), rtol=0, atol=0)
    assert signed == (name in policies.SIGNED)
    for value in {values[3].item(), -values[7].item() if signed else values[9].item()}:
        want = _apply_op(x, name, value, interpolation=InterpolationMode.NEAREST, fill=None)
        torch.testing.assert_close(operate(x, name, value), want, rtol=0, atol=0)


@pytest.mark.parametrize("policy", [RandAugment(), RandAugment(3, 20), AutoAugment(), AutoAugment("svhn")])
def test_every_image_runs_its_own_program(policy: object, x: torch.Tensor) -> None:
    program = policy.draw(12, 20, 28, generator=step_generator(0, 1))
    out = run_program(x, program)
    for row in range(12):
        one = x[row : row + 1]
        for index, magnitude in zip(program.operation[row], program.magnitude[row], strict=True):
            one = operate(one, OPERATIONS[index], magnitude.item())
        torch.testing.assert_close(out[row : row + 1], one, rtol=0, atol=0)
    assert len({tuple(steps) for steps in program.operation.tolist()}) > 4
    torch.testing.assert_close(policy(x, generator=step_generator(0, 1)), out, rtol=0, atol=0)


def test_half_a_batch_in_each_of_two_processes_is_the_batch_of_one(x: torch.Tensor) -> None:
    halves = [RandAugment()(x[6 * r : 6 * r + 6], generator=step_generator(0, 0, rank=r, world=2)) for r in range(2)]
    assert torch.equal(torch.cat(halves), RandAugment()(x, generator=step_generator(0, 0)))


def test_draws_follow_the_published_chances() -> None:
    program = RandAugment(2, 9).draw(7000, 32, 32, generator=step_generator(0, 0))
    share = program.operation.flatten().bincount(minlength=15) / 14000
    assert share[14] == 0  # no Invert
    torch.testing.assert_close(share[:14], torch.full((14,), 1 / 14), rtol=0, atol=0.01)
    rotated = program.magnitude[program.operation == OPERATIONS.index("Rotate")]
    assert set(rotated.tolist()) == {9.0, -9.0}
    learned = PublishedAuto(AutoAugmentPolicy.CIFAR10).policies
    program = AutoAugment("cifar10").draw(7000, 32, 32, generator=step_generator(0, 0))
    for name in ("Equalize", "Rotate", "Invert"):
        for step in range(2):
            expected = sum(pair[step][1] for pair in learned if pair[step][0] == name) / 25
            found = (program.operation[:, step] == OPERATIONS.index(name)).float().mean().item()
            assert found == pytest.approx(expected, abs=0.015)


def test_a_population_policy_applies_at_most_two_operations() -> None:
    always = PopulationPolicy(torch.full((LISTED,), 10), torch.full((LISTED,), 9))
    used = (always.draw(6000, 32, 32, generator=step_generator(0, 0)).operation > 0).sum(dim=1)
    torch.testing.assert_close(used.bincount(minlength=3) / 6000, torch.tensor([0.2, 0.3, 0.5]), rtol=0, atol=0.02)
    never = PopulationPolicy(torch.zeros(LISTED, dtype=torch.int64), torch.zeros(LISTED, dtype=torch.int64))
    assert not never.draw(100, 32, 32, generator=step_generator(0, 0)).operation.any()
    only = never.probability.clone()
    only[4] = 10  # Rotate
    program = PopulationPolicy(only, never.magnitude + 9).draw(500, 32, 32, generator=step_generator(0, 0))
    assert set(program.operation.flatten().tolist()) == {0, OPERATIONS.index("Rotate")}
    assert set(program.magnitude.flatten().tolist()) == {0.0, 30.0, -30.0}


def test_explore_moves_a_little_and_stays_inside() -> None:
    g = torch.Generator().manual_seed(0)
    policy = random_policy(g)
    children = [explore(policy, g) for _ in range(200)]
    moved = torch.stack([child.magnitude for child in children]) - policy.magnitude
    near = (moved.abs() <= 3).float().mean().item()
    assert 0.8 < near < 1.0
    assert all(child.probability.min() >= 0 and child.probability.max() <= 10 for child in children)


def test_the_worst_quarter_copies_the_best() -> None:
    assert exploit([0.1, 0.9, 0.5, 0.4, 0.2, 0.8, 0.6, 0.7]) == [1, 1, 2, 3, 5, 5, 6, 7]
    assert exploit([0.3, 0.1]) == [0, 1]


def test_the_search_finds_a_policy_that_is_rewarded() -> None:
    """The 'training' of a member is to collect how often its policy rotates; more is better."""

    def train(state: list[float], policy: PopulationPolicy, number: int) -> None:
        state.append(policy.probability[[4, 18]].float().mean().item() / 10)

    start = [[] for _ in range(8)]
    found = population_based_augmentation(start, train, lambda s: s[-1], rounds=12, generator=step_generator(0, 0))
    assert len(found.schedule) == 12
    assert found.state[-1] == found.score == max(found.score, 0.75)
    assert found.schedule[-1].probability[[4, 18]].float().mean() / 10 == pytest.approx(found.score)


def test_bad_input_is_one_sentence(x: torch.Tensor) -> None:
    for make in (
        lambda: operate(x, "Rotat"),
        lambda: operate(x.float(), "Rotate", 3.0),
        lambda: RandAugment(magnitude=31),
        lambda: AutoAugment("coco"),
        lambda: run_program(x, Program(torch.zeros(3, 2).long(), torch.zeros(3, 2))),
        lambda: PopulationPolicy(torch.zeros(3).long(), torch.zeros(LISTED).long()),
        lambda: exploit([]),
        lambda: population_based_augmentation([1], print, float, rounds=1, generator=torch.Generator()),
    ):
        with pytest.raises(InputError) as error:
            make()
        assert "\n" not in str(error.value)
