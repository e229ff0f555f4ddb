"""The 7-B example plans on a machine that has neither the weights nor a GPU, from a folder with the configuration alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from expunge.core.errors import BadInput
from expunge.data.packs import SENSITIVE
from expunge.pipeline.plan import check_runnable, plan, read_request

EXAMPLE = Path(__file__).parents[1] / "examples" / "refusals_qwen7b.yaml"
QWEN = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18944,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
MISTRAL = {
    "model_type": "mistral",
    "architectures": ["MistralForCausalLM"],
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 32768,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}


@pytest.mark.parametrize(("config", "parameters"), [(QWEN, 7.616e9), (MISTRAL, 7.248e9)])
def test_it_plans_for_24_gb_on_either_model(
    config: dict[str, Any], parameters: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, the model, is what differs. Weights in bfloat16 are 2 bytes a parameter; adapters add less than 2 GB."""
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**12))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    made = plan(read_request(EXAMPLE, {"model": str(tmp_path / "model"), "out": str(tmp_path / "out")}))
    assert made.estimate.parameters == pytest.approx(parameters, rel=1e-3)
    assert 2 * parameters < made.estimate.peak < 2 * parameters + 3e9 < 24e9
    assert made.aligned is not None and made.aligned.auto and made.aligned.target == "cybersecurity"
    assert set(made.aligned.pack.domains) == {*SENSITIVE, "benign"} and made.budget.stop == "refusals"
    assert {rule.key for rule in made.rules} == {
        "alignment.drift",
        "alignment.refusal_score.cybersecurity",
        "alignment.answer_accuracy",
    }
    with pytest.raises(BadInput, match=r"are needed on this machine|holds no weights"):
        check_runnable(made)
    assert not (tmp_path / "out").exists()


def test_without_a_limit_the_refusal_says_how_to_plan_for_another_machine(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    wide = {**QWEN, "intermediate_size": 100 * 18944}
    (tmp_path / "model" / "config.json").write_text(json.dumps(wide))
    request = read_request(EXAMPLE, {"model": str(tmp_path / "model"), "out": str(tmp_path / "out")})
    budget = request.budget.model_copy(update={"memory": None})
    with pytest.raises(BadInput, match=r"budget\.memory: 80 plans for one of 80 GB"):
        plan(request.model_copy(update={"budget": budget}))
