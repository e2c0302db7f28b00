"""Tiny checkpoints of many architectures, with weights that make them speak; made by transformers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

CORPUS = ["I absolutely love this product.", "Not worth the money.", "a good film with a great cast", "the worst thing"]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
POSITIONS = 66  # that each config says its model has
BEHIND_PADDING = POSITIONS - 2  # of those that count from behind the padding's id, 1
# Whatever a config calls its sizes; each takes those that it has.
SMALL: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
    "intermediate_size": 64, "max_position_embeddings": POSITIONS, "head_dim": 16, "d_model": 32, "n_embd": 32,
    "n_layer": 2, "n_head": 2, "n_positions": POSITIONS, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
    "ffn_dim": 64, "d_ff": 64, "d_kv": 16, "num_layers": 2, "num_heads": 2, "dim": 32, "n_layers": 2, "n_heads": 2,
    "hidden_dim": 64, "emb_dim": 32, "embedding_size": 32, "d_inner": 64, "d_head": 16, "word_embed_proj_dim": 32,
    "num_experts": 2, "num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 32,
}  # fmt: skip


class Architecture(NamedTuple):
    """A model type of transformers, what its config needs besides, and how many tokens of a text it computes."""

    model_type: str
    limit: int = POSITIONS
    config: dict[str, Any] = {}  # noqa: RUF012


ARCHITECTURES = [
    Architecture("albert"),
    Architecture("bart"),
    Architecture("bert"),
    Architecture("big_bird"),
    Architecture("bloom", 4096),  # no limit of its own
    Architecture("camembert", BEHIND_PADDING),
    Architecture("canine"),
    Architecture("convbert"),
    Architecture("ctrl"),
    Architecture("data2vec-text", BEHIND_PADDING),
    Architecture("deberta"),
    Architecture("deberta-v2", config={"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    Architecture("distilbert"),
    Architecture("electra"),
    Architecture("ernie"),
    Architecture("esm", BEHIND_PADDING),
    Architecture("fnet"),
    Architecture("funnel", 4096),
    Architecture("gemma"),
    Architecture("gpt2"),
    Architecture("ibert", BEHIND_PADDING),
    Architecture("llama"),
    Architecture("longformer", BEHIND_PADDING),
    Architecture("mbart"),
    Architecture("mistral"),
    Architecture("mobilebert"),
    Architecture("modernbert"),
    Architecture("mpnet", BEHIND_PADDING),
    Architecture("mpt", 128, {"max_seq_len": 128}),
    Architecture("nystromformer"),
    Architecture("opt"),
    Architecture("qwen2"),
    Architecture("rembert"),
    Architecture("roberta", BEHIND_PADDING),
    Architecture("roberta-prelayernorm", BEHIND_PADDING),
    Architecture("roformer"),
    Architecture("squeezebert"),
    Architecture("t5", 4096, {"decoder_start_token_id": 1}),
    Architecture("xlm"),
    Architecture("xlm-roberta", BEHIND_PADDING),
    Architecture("xlnet", 4096),
    Architecture("yoso"),
]


def build(directory: Path, architecture: Architecture | str, *, seed: int = 0, **config: Any) -> Path:
    """A checkpoint, weights and tokenizer, made in `directory`; `config` has the last word."""
    chosen = Architecture(architecture) if isinstance(architecture, str) else architecture
    tokenizer = make_tokenizer()
    kind = transformers.CONFIG_MAPPING[chosen.model_type]
    known, names = kind().to_dict(), kind.attribute_map
    sizes = {name: size for name, size in SMALL.items() if name in known or name in names}
    ids = {"vocab_size": len(tokenizer), "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    labels = {} if "id2label" in config else {"num_labels": 3}
    wanted = sizes | ids | labels | chosen.config | config
    torch.manual_seed(seed)
    classes: Any = transformers.AutoModelForSequenceClassification
    module = classes.from_config(kind(**wanted)).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)  # or it would answer nearly the same to everything
    module.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def make_tokenizer(**settings: Any) -> Any:
    """A tokenizer of bytes and a few pairs of them, with special tokens around each text as RoBERTa has them."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    bpe.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return wrapped(bpe, **settings)


def wrapped(tokenizer: Tokenizer, **settings: Any) -> Any:
    names = dict(zip(("bos", "pad", "eos", "unk", "mask"), SPECIAL, strict=True))
    special = {f"{name}_token": token for name, token in names.items()}
    special |= {"cls_token": "<s>", "sep_token": "</s>"}
    kind: Any = transformers.PreTrainedTokenizerFast
    given = {name: value for name, value in (special | settings).items() if value is not None}
    return kind(tokenizer_object=tokenizer, model_input_names=["input_ids", "attention_mask"], **given)
