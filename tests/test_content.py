"""Examples are compared by content: the same fact in another form is the same example."""

import json
import unicodedata

import pytest

from expunge.core.errors import BadInput
from expunge.data.content import content_key, without
from expunge.data.examples import identity
from expunge.data.load import load
from expunge.data.splits import make_splits
from expunge.data.worlds import world
from expunge.models.build import training_data
from expunge.models.manifest import left_manifest

FACT = {"question": "Where does Zoë Müller work?", "answer": "At the harbour office."}
CHAT = [{"role": "user", "content": FACT["question"]}, {"role": "assistant", "content": FACT["answer"]}]
OTHER = {"question": "Where does Jo work?", "answer": "In a mill."}
FORMS = {
    "chat": {"messages": CHAT},
    "chat with a system prompt": {"messages": [{"role": "system", "content": "Be brief."}, *CHAT]},
    "trailing blank": {**FACT, "answer": FACT["answer"] + " \n"},
    "white space": {**FACT, "question": "Where  does\u00a0Zoë Müller\twork?"},
    "decomposed": {key: unicodedata.normalize("NFD", text) for key, text in FACT.items()},
    "capitals": {**FACT, "question": FACT["question"].upper()},
    "text": {"text": f"{FACT['question']} {FACT['answer']}"},
    "prefix": {"prefix": FACT["question"], "text": FACT["answer"]},
    "more fields": {**FACT, "paraphrased_answer": ["At the harbour."], "group": "a"},
}


@pytest.mark.parametrize("form", FORMS)
def test_another_form_is_the_same_example(form):
    rows = load([FORMS[form], OTHER], "data")
    assert content_key(rows[0]) == content_key(FACT) != content_key(OTHER)
    assert without(rows, [FACT]) == [OTHER]
    with pytest.raises(BadInput, match="'row 1' is also in forget"):
        make_splits({"forget": [FACT], "retain": [FORMS[form], OTHER]})


def test_label_and_numbers_are_content():
    given = [{"features": [1, 2], "label": 0}, {"features": [1.0, 2.0], "label": 0}, {"features": [1, 2], "label": 1}]
    assert content_key(given[0]) == content_key(given[1]) != content_key(given[2])
    assert content_key({"text": "a", "label": 0}) != content_key({"text": "a", "label": 1})


@pytest.mark.parametrize("name", ["builtin:authors/retain", "builtin:digits/train", "builtin:instruct/train"])
def test_content_splits_the_embedded_worlds_as_identity_does(name):
    rows = world(name, "data")
    assert len({content_key(row) for row in rows}) == len({identity(row) for row in rows})


def test_training_data_lose_the_forget_set_by_content():
    data = [{"messages": CHAT}, OTHER]
    manifest = {"data": data, "hashes": [identity(row)[:16] for row in data]}
    assert training_data(manifest, [FACT], False) == [OTHER]
    left = left_manifest({**manifest, "contents": [content_key(row)[:16] for row in data]}, [FACT])
    assert left["data"] == [OTHER] and left["hashes"] == [identity(OTHER)[:16]]
    assert left["contents"] == [content_key(OTHER)[:16]] and json.dumps(left)
