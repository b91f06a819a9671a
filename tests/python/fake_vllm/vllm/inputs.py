"""Prompts (inputs/llm.py, v1/engine/input_processor.py)."""

from typing import TYPE_CHECKING, TypeAlias, TypedDict

if TYPE_CHECKING:
    from vllm.config import ModelConfig


class TokensPrompt(TypedDict):
    """A prompt of token ids: a plain dict."""

    prompt_token_ids: list[int]


PromptType: TypeAlias = str | list[int] | TokensPrompt


def token_ids(prompt: PromptType, model: "ModelConfig") -> list[int]:
    """The prompt's tokens. The fake's tokenizer makes one token a byte."""
    if isinstance(prompt, str):
        if model.skip_tokenizer_init:
            raise ValueError("Tokenizer not available when `skip_tokenizer_init=True`")
        tokens = list(prompt.encode())
    else:
        tokens = list(prompt["prompt_token_ids"] if isinstance(prompt, dict) else prompt)
    if not tokens:
        raise ValueError("The decoder prompt cannot be empty")
    if len(tokens) > model.max_model_len:
        raise ValueError(
            f"The decoder prompt (length {len(tokens)}) is longer than the maximum model length of "
            f"{model.max_model_len}. Make sure that `max_model_len` is no smaller than the number of text tokens."
        )
    return tokens
