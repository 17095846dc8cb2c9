"""Byte-level BPE tokenizers for the demo's models: small vocabularies, any text representable, loadable offline."""

from collections.abc import Iterable
from pathlib import Path

PADDING, START, END = "<|padding|>", "<|start|>", "<|end|>"


def write_tokenizer(folder: Path, texts: Iterable[str], vocabulary: int, *, lowercase: bool, frame: bool) -> None:
    """Learn merges from `texts` and write `tokenizer.json` and `tokenizer_config.json`.

    Ids: padding 0, start 1, end = vocabulary - 1, the largest (open_clip pools the text tower at the largest id).
    `frame` puts start and end around every text, as a text tower expects it.

    Raises:
        ValueError: the texts are too few for a vocabulary of that size.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase() if lowercase else None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 1, special_tokens=[PADDING, START], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != vocabulary - 1:
        raise ValueError(f"learned {tokenizer.get_vocab_size()} tokens of {vocabulary - 1}; give more varied texts")
    tokenizer.add_special_tokens([END])
    if frame:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{START} $A {END}", special_tokens=[(START, 1), (END, vocabulary - 1)]
        )
    wrapped = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token=PADDING, bos_token=START, eos_token=END, padding_side="right"
    )
    wrapped.save_pretrained(folder)
