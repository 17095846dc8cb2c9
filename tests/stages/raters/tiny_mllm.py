"""Folders of tiny multimodal language models with random weights, of several architectures: for mechanics only."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from stages.raters.rubric import load_rubric

SENTENCES = [
    *(question.text for name in ("mlm_filter", "dataman") for question in load_rubric(name).questions),
    "Answer with one integer from 0 to 100 and nothing else.",
    "Below is a caption that was found beside this image, written as one JSON string.",
    "a red circle above a green square on the table",
]
PAD, BEGIN, END, IMAGE = "<pad>", "<s>", "</s>", "<image>"
REPLY = "<|reply|>"
"""A special token that ends a turn, in tokenizers of word pieces."""
CHAT = (
    "{% for message in messages %}{{ message.role.upper() }}: {% for part in message.content %}"
    "{% if part.type == 'image' %}<image>\n{% else %}{{ part.text }}{% endif %}{% endfor %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def tokenizer(specials: tuple[str, ...] = (), *, whole_numbers: bool = False, sentences: tuple[str, ...] = ()) -> Any:
    """A byte-level BPE; integers are one token a digit, or one token each with `whole_numbers`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    digits = [] if whole_numbers else [pre_tokenizers.Digits(individual_digits=True)]
    inner.pre_tokenizer = pre_tokenizers.Sequence([*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    inner.decoder = decoders.ByteLevel()
    numbers = [f"{n} {n}\n{n}" for n in range(101)] * 40 if whole_numbers else []
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=[PAD, BEGIN, END, IMAGE, *specials],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    inner.train_from_iterator([*SENTENCES * 50, *numbers, *sentences], trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=inner, pad_token=PAD, bos_token=BEGIN, eos_token=END
    )


def word_pieces(kind: str) -> Any:
    """A tokenizer as SentencePiece makes them: "▁" stands for a space, and one is put before all text.

    `bpe`: as Llama 2's, with bytes for what it does not know, cut by merges alone; `unigram`: as T5's, cut at spaces.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = [PAD, BEGIN, END, IMAGE, REPLY]
    letters = [*map(chr, range(33, 127)), "▁"]
    spaces, digits = pre_tokenizers.Metaspace(), pre_tokenizers.Digits(individual_digits=True)
    trainer: Any = trainers.UnigramTrainer(
        vocab_size=600, special_tokens=[*special, "<unk>"], unk_token="<unk>", initial_alphabet=[*letters, "\n"]
    )
    inner = Tokenizer(models.Unigram())
    if kind == "bpe":
        bytes_ = [f"<0x{number:02X}>" for number in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=[*special, *bytes_], initial_alphabet=letters)
        inner = Tokenizer(models.BPE(byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Sequence([spaces, digits])
    inner.train_from_iterator(SENTENCES * 50, trainer)
    inner.decoder = decoders.Metaspace()
    if kind == "bpe":
        inner.pre_tokenizer = None
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=inner, pad_token=PAD, bos_token=BEGIN, eos_token=END
    )


def text_config(vocabulary: int, **changed: Any) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 0, **changed,
    }  # fmt: skip


def write_llava(
    folder: Path,
    *,
    whole_numbers: bool = False,
    side: int = 32,
    width: int = 32,
    layers: int = 2,
    sentences: tuple[str, ...] = (),
    window: int | None = None,
    text: dict[str, Any] | None = None,
    words: Any = None,
    answer: str = "ASSISTANT:",
) -> Path:
    """LLaVA: a CLIP tower, a projector, a Llama; with a window, a Qwen2 whose layers after the first have it.

    `text` holds settings of the language model beside its size; `words` is another tokenizer, and `answer` what a turn
    ends in.
    """
    import torch
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        Qwen2Config,
    )

    words = words or tokenizer(whole_numbers=whole_numbers, sentences=sentences)
    chat = CHAT.replace("ASSISTANT:", answer)
    shape = {"height": side, "width": side}
    pictures = CLIPImageProcessor(size={"shortest_edge": side}, crop_size=shape)
    LlavaProcessor(  # type: ignore[no-untyped-call]
        pictures, words, patch_size=8, vision_feature_select_strategy="default", chat_template=chat,
        image_token=IMAGE, num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    tower = CLIPVisionConfig(
        hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers, num_attention_heads=4,
        image_size=side, patch_size=8,
    )  # fmt: skip
    shape_of_text = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers, **(text or {})}
    language: Any = LlamaConfig(**text_config(len(words), **shape_of_text))
    if window is not None:
        narrow = {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 1}
        language = Qwen2Config(**text_config(len(words), **shape_of_text, **narrow))
    torch.manual_seed(0)
    config = LlavaConfig(vision_config=tower, text_config=language, image_token_index=3)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    return folder


def write_llama(folder: Path, *, seed: int = 0, whole_numbers: bool = False) -> Path:
    """A causal language model without an image."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    words = tokenizer(whole_numbers=whole_numbers)
    words.save_pretrained(folder)
    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(**text_config(len(words)))).save_pretrained(folder)
    return folder


def write_qwen2_vl(folder: Path) -> Path:
    """Qwen2-VL: patches of any resolution, rotary positions in three dimensions."""
    import torch
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    names = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    words = tokenizer(names)
    words.image_token, words.video_token = names[2:]
    pictures = Qwen2VLImageProcessor(size={"shortest_edge": 56 * 56, "longest_edge": 112 * 112})
    chat = CHAT.replace("<image>", "".join((names[0], names[2], names[1])))
    processor = Qwen2VLProcessor(  # type: ignore[no-untyped-call]
        pictures, words, Qwen2VLVideoProcessor(), chat_template=chat
    )
    processor.save_pretrained(folder)
    ids = words.convert_tokens_to_ids(list(names))
    config = Qwen2VLConfig(
        text_config=text_config(
            len(words), rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
        ),
        vision_config={"depth": 2, "embed_dim": 32, "num_heads": 4, "hidden_size": 32, "mlp_ratio": 2},
        vision_start_token_id=ids[0], vision_end_token_id=ids[1], image_token_id=ids[2], video_token_id=ids[3],
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    return folder


def write_idefics3(folder: Path) -> Path:
    """Idefics3, of which SmolVLM is a descendant: a SigLIP tower, pixel shuffle, a Llama."""
    import torch
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3ImageProcessor, Idefics3Processor

    names = ("<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
    words = tokenizer(names)
    pictures = Idefics3ImageProcessor(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, do_image_splitting=False
    )
    Idefics3Processor(pictures, words, image_seq_len=4, chat_template=CHAT).save_pretrained(folder)
    tower = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32,
        "patch_size": 8,
    }  # fmt: skip
    language = {"model_type": "llama", **text_config(len(words))}
    torch.manual_seed(0)
    config = Idefics3Config(vision_config=tower, text_config=language, image_token_id=3, scale_factor=2)
    Idefics3ForConditionalGeneration(config).save_pretrained(folder)
    return folder


@cache
def made(name: str) -> Path:
    """A folder with the model of that name, written once per process and removed at its end."""
    folder = Path(tempfile.mkdtemp(prefix="cuvee-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    written: Path = WRITERS[name](folder)
    return written


WRITERS: dict[str, Any] = {
    "words": write_llama,
    "other_words": lambda folder: write_llama(folder, seed=1),
    "words_whole_numbers": lambda folder: write_llama(folder, whole_numbers=True),
    "llava": write_llava,
    "llava_whole_numbers": lambda folder: write_llava(folder, whole_numbers=True),
    "llava_bpe_line": lambda folder: write_llava(folder, words=word_pieces("bpe"), answer="ASSISTANT\n"),
    "llava_bpe_space": lambda folder: write_llava(folder, words=word_pieces("bpe"), answer="ASSISTANT: "),
    "llava_bpe_reply": lambda folder: write_llava(folder, words=word_pieces("bpe"), answer=REPLY),
    "llava_windowed": lambda folder: write_llava(folder, window=24),
    "qwen2_vl": write_qwen2_vl,
    "idefics3": write_idefics3,
}
