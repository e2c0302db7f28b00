from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.checkpoints.embedded import SHIPPED
from core.loaders import stock
from core.loaders.text_model import TextModel
from core.loaders.transformers import TransformersLoader

POSITIVE = """
The headphones sound fantastic and fit perfectly.
I never had a single problem with this washing machine.
Setup took two minutes and everything just worked.
Great value for the price, I would buy it again.
This blender is not cheap, but it is worth every cent.
The jacket kept me warm and dry all winter.
The pasta was delicious and the staff were lovely.
We will definitely come back for the dessert.
The best coffee I have had in years.
Not a bad meal at all, we really enjoyed it.
The hotel room was clean, quiet and comfortable.
Our guide was charming and made the trip unforgettable.
The view from the balcony was breathtaking.
The flight was smooth and arrived early.
I couldn't be happier with our holiday.
The new version is fast, stable and a joy to use.
The documentation is clear and helpful.
This library saved me hours of work.
Customer support solved my problem quickly and kindly.
No complaints, it does exactly what it promises.
""".strip().splitlines()

NEGATIVE = """
The screen cracked after two days, what a piece of junk.
It isn't worth the money.
The zipper broke and nobody answered my emails.
I regret buying this vacuum cleaner.
The colour is not what was advertised and the fabric feels cheap.
Terrible quality, it fell apart within a week.
The soup was cold and tasted of nothing.
I would not recommend this restaurant to anyone.
The waiter was rude and ignored us all evening.
The burger was dry, overcooked and overpriced.
The hotel was dirty and the bathroom smelled awful.
Our luggage was lost and the airline did not care.
The beach was crowded and disappointing.
We waited three hours for a bus that never came, an awful experience.
The tour was boring and far too long.
The app crashes every time I open it.
The update is a disaster and nothing works anymore.
The interface is confusing and painfully slow.
This software is useless, I want a refund.
It does not do what it promises, very frustrating.
""".strip().splitlines()


@pytest.fixture(scope="module")
def model(embedded_directory: Path) -> TextModel:
    return TransformersLoader().load(embedded_directory)


def test_is_right_on_everyday_sentences(model: TextModel) -> None:
    wanted = [(text, "POSITIVE") for text in POSITIVE] + [(text, "NEGATIVE") for text in NEGATIVE]
    answers = [(text, model.predict([text])[0].label) for text, _ in wanted]
    wrong = [text for (text, label), answer in zip(wanted, answers, strict=True) if answer != (text, label)]
    assert len(wanted) == 40
    assert len(wrong) <= 6, wrong


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "😀👍🏽", "Это прекрасный фильм.", "素晴らしい映画でした。", "I LOVE THIS", "\x00\u200b\ufeff",
        "a" * 100_000, "good " * 20_000, "\U0001f600" * 100_000,
    ],
    ids=["empty", "space", "emoji", "cyrillic", "japanese", "upper", "invisible", "one word", "long", "long emoji"],
)  # fmt: skip
def test_answers_every_text(model: TextModel, text: str) -> None:
    [(label, score)] = model.predict([text])
    assert label in ("NEGATIVE", "POSITIVE")
    assert 0.5 <= score <= 1


def test_upper_case_changes_nothing(model: TextModel) -> None:
    assert model.predict(["I LOVE IT"]) == model.predict(["i love it"])


def test_a_batch_answers_as_each_text_alone(model: TextModel) -> None:
    together = model.predict(POSITIVE + NEGATIVE)
    alone = [model.predict([text])[0] for text in POSITIVE + NEGATIVE]
    assert [label for label, _ in together] == [label for label, _ in alone]
    assert [score for _, score in together] == pytest.approx([score for _, score in alone], abs=1e-5)


def test_ships_as_an_ordinary_checkpoint_of_20_mb(embedded_directory: Path) -> None:
    files = {path.name: path.stat().st_size for path in SHIPPED.iterdir() if path.is_file()}
    assert set(files) == {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert sum(files.values()) <= 20_000_000
    converted = {path: path.stat().st_size for path in (SHIPPED / "onnx").rglob("*") if path.is_file()}
    assert sum(converted.values()) <= 100_000
    assert sum(path.stat().st_size for path in embedded_directory.iterdir()) > 1.9 * files["model.safetensors"]


def test_pads_no_single_text_and_spells_unknown_words(embedded_directory: Path) -> None:
    tokenizer = json.loads((SHIPPED / "tokenizer.json").read_text())
    assert tokenizer["padding"] is None
    pieces = tokenizer["model"]["vocab"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    assert all(letter in pieces and f"##{letter}" in pieces for letter in letters)
    encoded = stock.load_tokenizer(embedded_directory)(["zyxwvutsrq"], 256)["input_ids"][0]
    assert len(encoded) < 16
    assert pieces["[UNK]"] not in encoded
