"""Properties of the tokenizers that a page cannot show."""
import csv
import json
import re

import pytest
from hypothesis import given, settings, strategies as st

from babyvlm.models.tokenizers import SPECIAL_TOKENS, bpe_tokenizer, build_vocab, load_vocab, unreachable, word_tokenizer

WORDS = ['look', 'at', 'the', 'ball', '.', '!', "'s", "n't", 'it', 's', "'"]
VOCAB = {w: i for i, w in enumerate([*SPECIAL_TOKENS, *WORDS])}
TEXT = st.lists(st.sampled_from([*WORDS, 'Ball', 'dog', "it's", 'a-b', '?!', 'naïve', ' ', '\n']), max_size=12)


@settings(max_examples=60, deadline=None)
@given(TEXT, st.sampled_from(['', ' ']))
def test_word_split_is_the_regex(words, glue):
    text = glue.join(words)
    want = [VOCAB.get(w, 1) for w in re.findall(r'\w+|[^\w\s]+', text)]
    assert word_tokenizer(VOCAB)(text).input_ids == want


@settings(max_examples=60, deadline=None)
@given(TEXT)
def test_clitic_split_is_whitespace(words):
    text = ' '.join(words)
    assert word_tokenizer(VOCAB, 'clitics')(text).input_ids == [VOCAB.get(w, 1) for w in text.split()]


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=40).filter(lambda s: not any(t in s.lower() for t in SPECIAL_TOKENS)))
def test_bpe_never_loses_text(text):
    import unicodedata
    t = bpe_tokenizer(['look at the ball'] * 5, 300)
    ids = t(text).input_ids
    assert t.unk_token_id not in ids
    assert t.decode(ids, skip_special_tokens=True) == unicodedata.normalize('NFKC', text).lower()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(WORDS + ['<unk>', '<pad>']), max_size=40), st.integers(1, 4))
def test_vocab_counts(words, min_freq):
    vocab = build_vocab([' '.join(words)], min_freq)
    assert sorted(vocab.values()) == list(range(len(vocab)))
    assert set(vocab) == set(SPECIAL_TOKENS) | {w for w in words if words.count(w) >= min_freq}
    assert load_vocab(vocab) == vocab


def test_vocab_file_is_checked(tmp_path):
    (tmp_path/'v.json').write_text(json.dumps({**VOCAB, 'extra': 99}))
    with pytest.raises(ValueError, match='without gaps'): word_tokenizer(tmp_path/'v.json')
    with pytest.raises(FileNotFoundError): word_tokenizer(tmp_path/'missing.json')
    with pytest.raises(ValueError, match="'words' or 'clitics'"): word_tokenizer(VOCAB, 'spaces')


def test_special_tokens_inside_words_do_not_change_the_vocabulary_size():
    t = word_tokenizer(VOCAB)
    assert len(t) == len(VOCAB) == t.vocab_size
    assert [t.pad_token_id, t.unk_token_id, t.bos_token_id, t.eos_token_id] == [0, 1, 2, 3]
    assert unreachable(t) == ["'s", "n't"]


def test_released_word_list(real_data):
    "Facts of the released list and of the phrases it must read (V1, sections 3.1 and 8)."
    path = real_data/'multimodal-baby'/'vocab.json'
    t = word_tokenizer(path)
    lost = unreachable(t)
    assert len(t) == 2350 and len(lost) == 69
    assert [t.get_vocab()[w] for w in lost[:2]] == [10, 32]
    assert unreachable(word_tokenizer(path, 'clitics')) == []
    rows = list(csv.DictReader((real_data/'babylmms-eval'/'vtwt.csv').open()))
    unknown = {k: [t.unk_token_id in t(r[k]).input_ids for r in rows] for k in ('positive_phrase', 'negative_phrase')}
    good, bad = unknown.values()
    assert sum(a or b for a, b in zip(good, bad)) == 175
    assert sum(a and not b for a, b in zip(good, bad)) == 63
    assert sum(b and not a for a, b in zip(good, bad)) == 58
