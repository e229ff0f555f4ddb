"""Means, medians and refusals of a federation's updates, worked out by hand, and which rows lie with whom."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from expunge.core.contracts import Output, Step
from expunge.core.errors import BadInput
from expunge.data.clients import Placing, client_of, clients_of
from expunge.data.examples import identity
from expunge.data.worlds.digits import digits
from expunge.methods._history import Kept
from expunge.methods._strategy import Strategy, strategy_of
from expunge.methods.federated.distil_others import without_all
from expunge.methods.federated.erase_client import admit
from expunge.methods.strategies.fedprox import Pull
from expunge.training.updates import (
    ClientUpdate,
    State,
    by_client,
    distance,
    mean_by_examples,
    require_some,
    screen,
    without_clients,
)


def update(client: str, values: Sequence[float], examples: int = 1, batches: int = 0) -> ClientUpdate:
    return ClientUpdate(client, state(values, batches), examples)


def state(values: Sequence[float], batches: int = 0) -> State:
    return {"w": torch.tensor(values, dtype=torch.float32), "batches": torch.tensor(batches)}


def next_w(
    strategy: Strategy | str, updates: Sequence[ClientUpdate], before: Sequence[float] = (0.0, 0.0)
) -> list[float]:
    chosen = strategy_of(strategy, "strategy") if isinstance(strategy, str) else strategy
    found: list[float] = chosen(state(before), updates)["w"].tolist()
    return found


THREE = [update("2", [0.0, 8.0]), update("0", [1.0, 2.0]), update("1", [5.0, 5.0])]


def test_the_mean_counts_examples_and_takes_the_largest_counter() -> None:
    """(3 x 1 + 1 x 5) / 4 = 2 and (3 x 2 + 1 x 6) / 4 = 3; of 7 and 9 batches 9, in the counter's own type."""
    found = mean_by_examples(state([0, 0]), [update("b", [5, 6], 1, 9), update("a", [1, 2], 3, 7)])
    assert found["w"].tolist() == [2.0, 3.0] and found["w"].dtype == torch.float32
    assert int(found["batches"]) == 9 and found["batches"].dtype == torch.int64


def test_sums_do_not_depend_on_who_answered_first() -> None:
    generator = torch.Generator().manual_seed(0)
    updates = [update(str(i), torch.randn(50, generator=generator).tolist(), i + 1) for i in range(7)]
    one, other = (mean_by_examples(state([0] * 50), part) for part in (updates, updates[::-1]))
    assert torch.equal(one["w"], other["w"])
    assert [each.client for each in by_client(updates[::-1])] == [str(i) for i in range(7)]


def test_the_others_mean_is_what_is_left_when_a_client_s_part_is_taken_out() -> None:
    """Clients of 1, 2 and 3 examples at 6, 3 and 2: the mean is 3; without the last (6 x 3 - 3 x 2) / 3 = 4."""
    updates = [update("a", [6.0], 1), update("b", [3.0], 2), update("c", [2.0], 3)]
    now = mean_by_examples(state([0.0]), updates)
    assert now["w"].item() == pytest.approx(3.0)
    found = without_clients(now, 6, [updates[2]])
    assert found["w"].item() == pytest.approx(4.0)
    assert found["w"].item() == pytest.approx(mean_by_examples(state([0.0]), updates[:2])["w"].item())


def test_a_distance_is_euclidean_over_all_weights_and_no_counter() -> None:
    assert distance(state([0, 0], 5), state([3, 4], 9)) == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        ({"w": torch.tensor([math.nan, 0.0]), "batches": torch.tensor(0)}, "sent w with values that are not finite"),
        ({"w": torch.zeros(3), "batches": torch.tensor(0)}, "sent w in another shape or type"),
        ({"w": torch.zeros(2).double(), "batches": torch.tensor(0)}, "sent w in another shape or type"),
        ({"w": torch.zeros(2)}, "sent other tensors than it received (batches)"),
        ({"w": torch.tensor([3e6, 0.0]), "batches": torch.tensor(0)}, "moved 3e+06 times as far as the median client"),
    ],
)
def test_what_no_round_can_use_is_named_and_left_out(sent: dict[str, Tensor], why: str) -> None:
    """Three honest clients at distance 1 of the start; the median distance is theirs."""
    honest = [update(name, [1.0, 0.0]) for name in ("0", "1", "2")]
    usable, refused = screen(state([0.0, 0.0]), [ClientUpdate("7", sent, 1), *honest])
    assert refused == {"7": why} and usable == honest


def test_a_large_update_within_a_million_times_the_median_is_used() -> None:
    honest = [update(name, [1.0, 0.0]) for name in ("0", "1", "2")]
    assert not screen(state([0.0, 0.0]), [*honest, update("7", [9e5, 0.0])])[1]


def test_a_count_of_no_example_is_refused_and_a_round_of_nobody_ends_the_training() -> None:
    usable, refused = screen(state([0.0]), [update("4", [1.0], examples=0)])
    assert not usable and refused == {"4": "trained on no example"}
    with pytest.raises(BadInput, match=r"has no usable update \(client 4 trained on no example\)"):
        require_some(usable, 3, refused)


def test_the_median_of_each_weight() -> None:
    """Of 0, 1, 5 it is 1 and of 8, 2, 5 it is 5; with a fourth client at 3, 3 it is 2 and 4."""
    assert next_w("median", THREE) == [1.0, 5.0]
    assert next_w("median", [*THREE, update("3", [3.0, 3.0])]) == [2.0, 4.0]


def test_the_trimmed_mean_of_each_weight() -> None:
    """A third of three clients is one at each end: the middle values stay, 1 and 5. Nothing trimmed: 2 and 5."""
    assert next_w(strategy_of({"trimmed_mean": {"trim": 0.34}}, "s"), THREE) == [1.0, 5.0]
    assert next_w(strategy_of({"trimmed_mean": {"trim": 0.0}}, "s"), THREE) == pytest.approx([2.0, 5.0])


def test_krum_takes_the_one_with_the_nearest_neighbours() -> None:
    """Five clients on a line at 0, 1, 3, 10, 11, a fifth hostile: 5 - 1 - 2 = 2 neighbours count. Squared distances
    to them: 1 + 9, 1 + 4, 4 + 9, 1 + 49, 1 + 64; the least is that of the client at 1, then of the one at 0."""
    line = [update(str(i), [x, 0.0]) for i, x in enumerate((0.0, 1.0, 3.0, 10.0, 11.0))]
    assert next_w("krum", line) == [1.0, 0.0]
    assert next_w(strategy_of({"krum": {"keep": 2}}, "s"), line) == [0.5, 0.0]


def test_legato_blends_an_unsteady_layer_with_what_came_before() -> None:
    """One client; layer a moves by 1 each round, layer b by 1 and then by 3: its lengths have the mean 2 and the
    deviation 1, a's the deviation 0, so b's factor is about 0 and its change the mean of its log, 2."""
    legato = strategy_of({"legato": {"log": 2}}, "s")
    zero = {"a": torch.zeros(1), "b": torch.zeros(1)}
    legato(zero, [ClientUpdate("0", {"a": torch.ones(1), "b": torch.ones(1)}, 1)])
    saved = legato.state()
    again = strategy_of({"legato": {"log": 2}}, "s")
    again.load_state(saved)
    for one in (legato, again):
        found = one(zero, [ClientUpdate("0", {"a": torch.ones(1), "b": torch.full((1,), 3.0)}, 1)])
        assert found["a"].item() == pytest.approx(1.0) and found["b"].item() == pytest.approx(2.0)


def test_legato_s_factors_are_inverse_deviations_with_a_sum_of_one_over_layers() -> None:
    """One client; layer a's weight and bias move together by 0 and then by 5 (3 and 4), layer b by 0 and then by 10:
    deviations 2.5 and 5, factors 2/3 and 1/3. Blended with the log's mean, half of the last update, a full update
    becomes 2/3 + 1/6 = 5/6 of itself in a, 1/3 + 1/3 = 2/3 in b."""
    legato = strategy_of({"legato": {"log": 2}}, "s")
    zero = {"a.weight": torch.zeros(1), "a.bias": torch.zeros(1), "b.weight": torch.zeros(1)}
    legato(zero, [ClientUpdate("0", zero, 1)])
    moved = {"a.weight": torch.tensor([3.0]), "a.bias": torch.tensor([4.0]), "b.weight": torch.tensor([10.0])}
    found = legato(zero, [ClientUpdate("0", moved, 1)])
    assert [found[name].item() for name in zero] == pytest.approx([2.5, 10 / 3, 20 / 3])


@pytest.mark.parametrize("optimizer", ["adam", "yogi", "adagrad"])
def test_two_rounds_of_fedopt_are_algorithm_2_in_plain_numbers(optimizer: str) -> None:
    """Clients of 1 and 3 examples whose mean changes are worked out number by number; the second round is computed by
    a strategy that was given the first one's memory, bit for bit the same as by the one that kept it."""
    chosen = {"fedopt": {"optimizer": optimizer, "rate": 0.1, "beta1": 0.8, "beta2": 0.9, "tau": 0.01}}
    kept, weights = strategy_of(chosen, "s"), state([1.0, -2.0])
    expected, m, v = [1.0, -2.0], [0.0, 0.0], [1e-4, 1e-4]
    for changes in (([0.4, -1.0], [0.8, 0.2]), ([-0.3, 0.05], [0.1, 0.01])):
        sent = [[x + d for x, d in zip(weights["w"].tolist(), change, strict=True)] for change in changes]
        updates = [update("a", sent[0], 1, 4), update("b", sent[1], 3, 6)]
        again = strategy_of(chosen, "s")
        again.load_state(kept.state())
        weights, same = kept(weights, updates), again(weights, updates)
        assert torch.equal(weights["w"], same["w"]) and kept.state().keys() == again.state().keys()
        for i in range(2):
            d = (changes[0][i] + 3 * changes[1][i]) / 4
            m[i] = 0.8 * m[i] + 0.2 * d
            yogi = v[i] - 0.1 * d * d * (1 if v[i] > d * d else -1)
            v[i] = {"adam": 0.9 * v[i] + 0.1 * d * d, "yogi": yogi, "adagrad": v[i] + d * d}[optimizer]
            expected[i] += 0.1 * m[i] / (math.sqrt(v[i]) + 0.01)
        assert weights["w"].tolist() == pytest.approx(expected, abs=1e-6)
        assert weights["w"].dtype == torch.float32 and int(weights["batches"]) == 6


def test_fedopt_averages_what_no_gradient_moves() -> None:
    """Running means of 1 and 5 at 3 and 1 examples: 2, as under plain averaging."""
    sent = [ClientUpdate(c, {"norm.running_mean": torch.tensor([x])}, n) for c, x, n in (("a", 1.0, 3), ("b", 5.0, 1))]
    fedopt = strategy_of("fedopt", "s")
    assert fedopt({"norm.running_mean": torch.zeros(1)}, sent)["norm.running_mean"].tolist() == [2.0]
    assert fedopt.state() == {}


def test_the_pull_of_fedprox_is_half_mu_times_the_squared_distance() -> None:
    """Two weights moved by 3 and 4 from where the round began: 0.1 / 2 x 25 = 1.25, half of it for half a batch."""
    module = nn.Linear(2, 1, bias=False)
    pull = Pull(0.1)
    pull.prepare(_Run(module))  # type: ignore[arg-type]
    with torch.no_grad():
        module.weight += torch.tensor([[3.0, 4.0]])
    outputs: dict[str, Output] = {}
    assert pull(Step(outputs, 0, 0, torch.Generator())).item() == pytest.approx(1.25)
    assert pull(Step(outputs, 0, 0, torch.Generator(), share=0.5)).item() == pytest.approx(0.625)


class _Run:
    def __init__(self, module: nn.Module) -> None:
        self.model = self
        self.module = module


def test_an_unknown_strategy_or_option_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match="unknown strategy 'fedavgg'; did you mean 'fedavg'"):
        strategy_of("fedavgg", "trainer.federation.strategy")
    with pytest.raises(BadInput, match=r"strategy\.krum\.keep"):
        strategy_of({"krum": {"keep": 0}}, "strategy")


def test_the_server_refuses_a_leaving_client_s_model_from_outside_the_ball() -> None:
    """The reference at 0, a model at distance 5: inside a radius of 5, outside one of 4.9; and NaN is refused."""
    weights, why = admit(state([0, 0]), state([3, 4]), 5.0)
    assert weights["w"].tolist() == [3.0, 4.0] and why == ""
    weights, why = admit(state([0, 0]), state([3, 4]), 4.9)
    assert (
        weights["w"].tolist() == [0.0, 0.0] and why == "lies 5 from the mean of the others, outside the radius of 4.9"
    )
    weights, why = admit(state([0, 0]), state([math.nan, 4]), 5.0)
    assert weights["w"].tolist() == [0.0, 0.0] and "not finite" in why


def placing(way: str, alpha: float = 0.5, seed: int = 0) -> Placing:
    return Placing.of({"partition": way, "count": 4, "alpha": alpha, "seed": seed}, "clients")


@pytest.mark.parametrize("way", ["iid", "dirichlet", "label"])
def test_no_row_moves_to_another_client_when_others_are_deleted(way: str) -> None:
    rows = digits()["train"][:300]
    whole = clients_of(rows, placing(way, seed=3))
    fewer = clients_of(rows[::2], placing(way, seed=3))
    home = {identity(row): name for name, own in whole.items() for row in own}
    assert sum(map(len, whole.values())) == 300
    assert all(home[identity(row)] == name for name, own in fewer.items() for row in own)
    assert all(str(client_of(row, placing(way, seed=3))) == home[identity(row)] for row in rows)


def test_dirichlet_shares_are_skewed_and_iid_ones_are_not() -> None:
    """The largest share that one of four clients has of a label, averaged over labels: a quarter and a little when
    rows are drawn alike, more than a half at a concentration of 0.1."""
    rows = digits()["train"]

    def largest(way: str, alpha: float) -> float:
        found = clients_of(rows, placing(way, alpha))
        counts = [Counter(row["label"] for row in own) for own in found.values()]
        return sum(max(c[k] for c in counts) / sum(c[k] for c in counts) for k in range(10)) / 10

    assert largest("iid", 1.0) < 0.4
    assert largest("dirichlet", 0.1) > 0.6
    assert largest("dirichlet", 1e5) < 0.4


def test_clients_of_a_field_come_in_the_order_of_their_numbers() -> None:
    rows = [{"features": [float(i)], "label": 0, "client": name} for i, name in enumerate([10, 9, "b", "a", 9])]
    assert list(clients_of(rows, placing("field"))) == ["9", "10", "a", "b"]
    with pytest.raises(BadInput, match="'row 2' has no client"):
        clients_of([rows[0], {"features": [0.0], "label": 1}], placing("field"))


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ([1, [1]], r"row 2' has the client \[1\], which is no name"),
        (["", "a"], "row 1' has the client '', which is no name"),
        ([1, 1.0], "row 2' has the client 1.0, which is no name"),
        ([1, 2, "1"], "row 3' names the client 1 as text, and another row as a number"),
    ],
)
def test_a_client_has_one_name(names: Sequence[object], why: str) -> None:
    """Else a request for the client would select some of its rows, and leave the others in the training."""
    with pytest.raises(BadInput, match=why):
        clients_of([{"features": [0.0], "label": 0, "client": name} for name in names], Placing())


def test_a_client_s_updates_are_subtracted_by_their_shares_of_each_round() -> None:
    """Client 0 moves w by 4 with one of two rows, then by -8 with one of four: of 10 stay 10 - 4/2 + 8/4 = 10; what
    another one moves in the same rounds changes nothing, and counters stay."""
    kept = [
        Kept(1, state([1.0]), [update("0", [5.0]), update("1", [7.0])]),
        Kept(2, state([3.0]), [update("0", [-5.0]), update("1", [0.0], 3)]),
    ]
    found = without_all(state([10.0], 7), kept, {"0"})
    assert found["w"].tolist() == [10.0] and int(found["batches"]) == 7
    assert without_all(state([10.0]), kept[:1], ["0"])["w"].tolist() == [8.0]
    assert without_all(state([10.0]), kept[1:], ["1"])["w"].tolist() == [12.25]
