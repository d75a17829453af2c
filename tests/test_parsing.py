"Every reply of the table gets the reader's verdict; the published rules are repeated exactly; laws that no table can hold."
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babyvlm.benchmarks.parsing import (DIRECTIONS, final_message, parse_direction, parse_item, parse_letter, parse_number, parse_yes_no,
                                        plain)
from babyvlm.items import Item

CASES = json.loads((Path(__file__).parent/'parsing_cases.json').read_text())
HELDOUT = json.loads((Path(__file__).parent/'parsing_heldout.json').read_text())['cases']
BIRDS = ['gull', 'albatross', 'duck', 'sea duck']


def strict(c):
    if c['parser'] == 'letter': return parse_letter(c['reply'], c['options'])
    return dict(number=parse_number, direction=parse_direction, yes_no=parse_yes_no)[c['parser']](c['reply'])


def disagreements(cases):
    "What the reader says and what is heard, where they differ; True is not 1."
    heard = [(c, strict(c).answer) for c in cases]
    return [(c['reply'], c['answer'], v) for c, v in heard if (v, type(v)) != (c['answer'], type(c['answer']))]


def test_the_table_is_large_and_has_no_repeats():
    keys = {(c['parser'], str(c['options']), c['reply']) for c in CASES}
    assert len(keys) == len(CASES) >= 300
    assert sum(c['answer'] is None for c in CASES) >= 100


def test_the_held_out_replies_are_new_and_say_when_they_were_written():
    def key(c): return c['parser'], str(c['options']), c['reply']
    assert len({key(c) for c in HELDOUT}) == len(HELDOUT) and not {key(c) for c in HELDOUT} & {key(c) for c in CASES}
    assert {c['written'] for c in HELDOUT} <= {'before', 'after'} and all(c['form'] for c in HELDOUT)


@pytest.mark.parametrize('parser', ['letter', 'number', 'direction', 'yes_no'])
def test_every_reply_gets_the_readers_verdict(parser):
    assert not disagreements([c for c in CASES if c['parser'] == parser])


def test_held_out_replies_are_read_as_the_page_reports():
    left = disagreements(HELDOUT)
    assert len(left) <= 0.02 * len(HELDOUT), '\n'.join(map(str, left))


def test_golden_cases_of_the_hierarchy_paper(golden):
    d = json.loads((golden/'hierarchy.json').read_text())['answer_parsing']
    for c in d['cases']:
        v = parse_letter(c['response'], d['options'], rule='legacy')
        assert (v.answer or 'Unknown', v.rule) == (c['letter'], 'legacy'), c


def test_published_devcv_rules():
    said = ['a dog', 'Answer: c', '(B)', 'E', 'CD', 'none']
    assert [parse_letter(r, 4, 'devcv').answer for r in said] == ['A', 'C', 'B', None, None, None]
    assert [parse_number(r, 'devcv').answer for r in ('I see four or 5', 'eleven', '12 balls', 'none', 'Ten')] == [4, None, 12, None, 10]
    assert [parse_direction(r, rule='devcv').answer for r in ('Left', 'left.', 'top right', 'top-right', '')] == ['left', None, 'top right', None, None]
    assert [parse_yes_no(r, 'legacy').answer for r in ('Yes', ' nah', 'maybe', '')] == [True, False, None, None]


@settings(max_examples=300, deadline=None)
@given(letter=st.sampled_from('ABCD'), wrap=st.sampled_from(['{}', '({})', '{}.', '**{}**', '[{}]', '"{}"', '{})']),
       lead=st.sampled_from(['', 'Answer: ', 'The answer is ', 'I would choose ', 'Final answer: ', 'It is ', 'So the answer is ', 'Option ']),
       tail=st.sampled_from(['', '.', '\n', ' ']), lower=st.booleans())
def test_a_plain_commitment_is_heard_however_it_is_set(letter, wrap, lead, tail, lower):
    said = lead + wrap.format(letter.lower() if lower else letter) + tail
    assert parse_letter(said, 4).answer == letter, said


@settings(max_examples=200, deadline=None)
@given(a=st.sampled_from('ABCD'), b=st.sampled_from('ABCD'), lead=st.sampled_from(['', 'Answer: ', 'It is ', 'Either ', 'Maybe ']),
       link=st.sampled_from([' or ', '/', ', ', ' and ', ' or maybe ']))
def test_two_letters_are_never_one(a, b, lead, link):
    v = parse_letter(f'{lead}{a}{link}{b}', 4)
    assert v.answer == (a if a == b else None)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
def test_any_text_gives_a_verdict(text):
    assert parse_letter(text, BIRDS).answer in ('A', 'B', 'C', 'D', None)
    n = parse_number(text).answer
    assert n is None or (isinstance(n, int) and n >= 0)
    assert parse_direction(text).answer in (*DIRECTIONS, None)
    assert plain(plain(text)) is not None


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet='efghijklmnopqrstuvwxyz .,!?', max_size=60))
def test_a_text_without_letters_numbers_or_names_is_no_answer(text):
    assert parse_letter(text, 4).answer is None


def test_options_in_every_form():
    for options in (4, 'ABCD', list('ABCD'), BIRDS, dict(zip('ABCD', BIRDS)), tuple(BIRDS)):
        assert parse_letter('(B)', options).answer == 'B'
    assert parse_letter('D', 3).answer is None
    assert parse_letter(None, 4).rule == 'empty'
    with pytest.raises(ValueError, match="unknown rule 'guess'"): parse_letter('A', 4, 'guess')


def test_items_of_each_kind():
    number = Item('n', 'count', (), options=('1', '2', '3'), meta={'answer': 'number'})
    way = Item('d', 'vdr', (), options=('left', 'right'), meta={'answer': 'direction'})
    assert [parse_item(number, t).answer for t in ('two', '7', '2 or 3')] == [1, None, None]
    assert [parse_item(way, t).answer for t in ('Right.', 'top')] == [1, None]
    assert parse_item(Item('l', 'b', (), options=BIRDS), 'Answer: C', 'legacy').answer == 0
    with pytest.raises(ValueError, match="answer 'essay'"): parse_item(Item('x', 'b', (), options=BIRDS, meta={'answer': 'essay'}), 'A')

@pytest.mark.parametrize('rule', ('strict', 'legacy', 'devcv'))
@pytest.mark.parametrize('n', (400, 5000, 10**5))
def test_digits_without_end_are_no_count(n, rule): assert parse_number('1'*n, rule).answer is None


@pytest.mark.parametrize('reply, right', [('Yes, there is no doubt that a dog is shown.', True), ('Yes. There are no other animals.', True), ('Yes and no.', None),
                                          ('The answer is yes, no question.', True), ('No, there is no dog.', False), ('No doubt, yes.', True), ('Is it yes or no?', None),
                                          ('No animals are shown', False), ('There are no animals.', False), ('Yes. Wait, no.', False), ('maybe', None)])
def test_a_no_that_speaks_of_something_else_is_no_answer(reply, right): assert parse_yes_no(reply).answer == right


@pytest.mark.parametrize('reply, right', [('upward and to the right', 'top right'), ('up and to the left', 'top left'), ('bottom and right', 'bottom right'), ('right top', 'top right'),
                                          ('to the left and down', 'bottom left'), ('lower left-hand corner', 'bottom left'), ('up, to the left', 'top left'),
                                          ('from left to right', None), ('from top to bottom', None), ('left and right', None), ('It left to the right.', 'right')])
def test_diagonals_in_any_spelling(reply, right): assert parse_direction(reply).answer == right


@pytest.mark.parametrize('reply', ('The picture shows a dog, yes. No cat there.', 'It is a dog, yes. There is no cat.'))
def test_a_yes_that_ends_a_sentence_is_said(reply): assert parse_yes_no(reply).answer is True


@pytest.mark.parametrize('reply', ('(A) (B)', '(A)(B)', '[A][C]', '(A)-(C)', '(A) – (D)', 'I choose (A)(B).'))
def test_letters_side_by_side_are_two_answers(reply): assert parse_letter(reply, 4).answer is None


@pytest.mark.parametrize('reply', ('there are 3-4 cups', 'There are 3–4 cups.', 'I see 2 to 3 of them', 'I count 3/4', 'there are two or three', '3-4'))
def test_a_range_is_no_count(reply): assert parse_number(reply).answer is None


def test_marks_of_thoughts_close_each_other_whatever_their_names():
    assert parse_letter('<think> B <thought> C </thought> A', BIRDS).answer == 'A'


NEIGHBOURS = [   # written after the cases, without looking at the rules; (parser, reply, right)
    ('letter', '<chain_of_thought>A</chain_of_thought>B', 'B'), ('letter', '< think >A</ think >B', 'B'), ('letter', '＜think＞A＜/think＞B', 'B'),
    ('letter', '<reasoning_content>A?</reasoning_content>B', 'B'), ('letter', '<inner_monologue>The answer is A', None), ('letter', '<rationale>The answer is A.</rationale>B', 'B'),
    ('letter', '<details><summary>Thinking</summary>The answer is A</details>B', 'B'), ('letter', '<details>B</details>', 'B'),
    ('letter', 'Options: A. bird B. object C. label D. choice. Answer: object', 'B'), ('letter', 'A. bird, B. object, C. label, D. choice. My answer is label.', 'C'),
    ('letter', 'Option A: bird\nOption B: object\nOption C: label\nOption D: choice\nAnswer: Option B', 'B'), ('letter', 'Option B: object', 'B'),
    ('letter', 'A. bird | B. object | C. label | D. choice', None), ('letter', '🅑', 'B'), ('letter', '🅲', 'C'), ('letter', 'I would say A, but on reflection B', 'B'),
    ('number', '−3', None), ('number', 'twenty‑three', 23), ('number', 'twenty–three', 23), ('number', '≥ 3', None), ('number', '>3', None), ('number', 'x > 3', None),
    ('number', '> 3', 3), ('number', '<answer>3</answer>', 3), ('number', '3\ufe0f\u20e3', 3), ('number', '１２', 12),
    ('direction', 'up & left', 'top left'), ('direction', 'top + left', 'top left'), ('direction', 'up-and-right', 'top right'), ('direction', 'up (right)', 'top right'),
    ('direction', 'top‑left', 'top left'), ('direction', 'up and on the right', 'top right'), ('direction', 'left & right', None), ('direction', '↗', 'top right'), ('direction', '⬅️', 'left'),
    ('direction', '⬆️➡️', None), ('direction', 'left → right', None), ('direction', 'Answer → left', 'left'), ('direction', 'exits (right)', 'right'),
    ('yes_no', 'yes no', None), ('yes_no', 'yes | no', None), ('yes_no', 'yes, no other animals', True), ('yes_no', 'yes/no: yes', True)]


NEIGHBOURS += [(parser, f'{opens}{thought}{closes}{answer}', right) for opens, closes in (
    ('<|START_THINKING|>', '<|END_THINKING|><|START_RESPONSE|>'), ('<unused94>thought\n', '<unused95>'), ('<antThinking>', '</antThinking>'), ('```thinking\n', '\n```\n'),
    ('<plan>', '</plan>'), ('<!-- think -->', '<!-- /think -->'), ('<!--thinking-->', '<!--/thinking-->'), ('<th\u200bink>', '</think\u2060>'))
    for parser, thought, answer, right in (('letter', 'The answer is A', 'B', 'B'), ('number', 'The answer is 9', '3', 3), ('direction', 'right. right', 'left', 'left'),
                                           ('yes_no', 'No. The answer is no', 'yes', True), ('letter', 'The answer is A', '', None))]
NEIGHBOURS += [('direction', 'top/left', 'top left'), ('direction', 'down/right corner', 'bottom right'), ('direction', 'left/right', None), ('direction', 'between left and right', None),
               ('yes_no', 'Absolutely yes, there are no others.', True), ('yes_no', 'Yes and no other answer is possible.', True), ('yes_no', 'yes and no', None),
               ('letter', '<details><summary>Thought for 3 seconds</summary>The answer is A', None), ('letter', '<|START_THINKING|>The answer is A', None)]


NEIGHBOURS += [('letter', f'<{tag}>The answer is A</{tag}>B', 'B') for tag in ('reason', 'reflect', 'analyze', 'working', 'scratch', 'scratch_pad', 'step-by-step', 'thinking_mode')]
NEIGHBOURS += [
    ('letter', '\\<think\\>The answer is A\\</think\\>B', 'B'), ('letter', '[BEGIN THINKING]The answer is A[END THINKING]B', 'B'),
    ('letter', '<|im_start|>think\nThe answer is A\n<|im_start|>answer\nB', 'B'), ('letter', '<|im_start|>think\nThe answer is A', None),
    ('letter', '## Thinking\n\nThe answer is A?\n\n## Final Response\n\nThe answer is B.', 'B'), ('letter', '<think>\nFinal answer:\nA', None),
    ('letter', '<B>', 'B'), ('letter', 'Answer: <B>', 'B'), ('letter', '<b>B</b>', 'B'), ('letter', 'A; B', None), ('letter', 'A+B', None), ('letter', 'A B C D', None), ('letter', 'Answer: C (or D)', None),
    ('letter', 'C. Because image A shows a cat.', 'C'), ('letter', '(C) The animal A is smaller.', 'C'), ('letter', 'Answer: C\n\nOption A is a cat, option B is a dog.', 'C'),
    ('letter', 'Image A: cat.\nImage B: cup.\n\nSo the answer is image B.', 'B'), ('letter', 'It must be image B, since image A is a cat.', 'B'), ('letter', 'Image A shows a cat. Image C shows a cup.', None),
    ('number', '3\n\nThere are 2 on the left and 1 on the right.', 3), ('number', 'Three\nThere are two big cups and one small.', 3), ('number', '3 cups. There are 2 on the left and 1 on the right.', 3),
    ('number', '2 red\n3 blue', None), ('number', 'How many cups\n3', 3), ('number', 'One, two, three. So 3.', None), ('number', 'The total is 2 + 1 = 3.', 3), ('number', '2 plus 1 equals 3', 3), ('number', '2 + 1', None),
    ('number', 'There are 2 rows of 3, so 6.', None), ('number', '2 and a half', None), ('number', 'negative 3', None), ('number', 'minus 3', None), ('number', 'I count 3 cups on the table and 2 on the floor, so 5.', None), ('number', 'I count 3 cups.', 3), ('number', '1\n2\n3', None), ('number', '3: 2 red and 1 blue', 3), ('number', '1. cup 2. cup 3. cup', None),
    ('number', 'I see 2 red and 1 blue, so 3.', None), ('number', '5 in total (2 left, 3 right)', 5), ('number', 'It looks like 4 or 5, I would say 5', 5), ('number', 'I would say 4 or 5', None),
    ('number', 'There are 2 on the left and 3 on the right.', None), ('letter', 'A rather than B', 'A'), ('letter', 'A rather big dog', None), ('letter', "its b", 'B'),
    ('yes_no', 'If it has fur, yes; otherwise no', None), ('yes_no', 'If you look closely, yes.', True), ('yes_no', 'no no', False), ('yes_no', 'yes, no', None),
    ('direction', 'The object is left out', None), ('direction', 'It rolls left out of the frame', 'left'), ('direction', 'A) left', 'left'), ('direction', "To the viewer's left", 'left'),
    ('direction', 'It starts left, ends up top', 'top'), ('direction', 'Right above', 'top'),
    ('direction', 'It moved from the bottom to the right.', None), ('direction', 'left to top', None), ('direction', 'up to the left', 'top left'), ('direction', 'It did not exit right, it went left.', 'left')]


def test_a_letter_and_another_options_text_in_brackets_differ():
    options = ['cat', 'dog', 'duck', 'cow']
    for reply, right in {'Answer: A (duck)': None, 'A (the duck)': None, 'Answer: C (duck)': 'C', 'The answer is C (a duck).': 'C', 'Answer: A (the duck is in B)': 'A'}.items():
        assert parse_letter(reply, options).answer == right, reply


def test_letters_within_an_option_are_no_labels():
    options = ['x-ray', 'U.S. flag', 'C-3PO', 'A/C unit']
    shown = '\n'.join(f'{l}. {o}' for l, o in zip('ABCD', options))
    assert [parse_letter(t, options).answer for t in (shown, f'{shown}\nAnswer: D', 'A/C unit')] == [None, 'D', 'D']


NEIGHBOURS += [   # thoughts in brackets, in fields of an object and under headings; forms with boxes; wholes and parts; turns of one line
    ('letter', '[THOUGHT]The answer is A[/THOUGHT]B', 'B'), ('letter', '{think}A{/think}B', 'B'), ('letter', 'Thinking... \nThe answer is A.\n', None), ('letter', '<draft>The answer is A</draft>B', 'B'),
    ('letter', '{"thought": "Final answer: A", "answer": "B"}', 'B'), ('letter', '{"correct_option": "C", "explanation": "A is a \\"bird\\""}', 'C'),
    ('letter', '{"reasoning": "Final answer: A', None), ('number', '{"reasoning": "I count 3', None), ('direction', '{"reasoning":"enters left", "direction":"right"}', 'right'),
    ('letter', 'Thought: The answer is A.\nAnswer: B', 'B'), ('letter', 'Analysis:\nThe answer is A.\n\nAnswer:\nB', 'B'), ('yes_no', '**Thought 1:** yes.\n**Answer:** no', False),
    ('letter', 'Answer: B\nExplanation: A is wrong', 'B'), ('yes_no', '{"is_dog":true}', True), ('yes_no', '{"answer":false}', False), ('yes_no', 'True: it is a dog', True),
    ('letter', '- [ ] A\n- [ ] B\n- [x] C\n- [ ] D', 'C'), ('letter', '☐ A. bird\n☑ B. fish', 'B'), ('letter', '❌ A\n✅ B', 'B'), ('letter', '( ) A (•) B ( ) C', 'B'), ('letter', '[ ] A\n[ ] B', None),
    ('yes_no', '[x] Yes [ ] No', True), ('yes_no', 'Yes [ ] No [x]', False), ('yes_no', '❌ Yes ✅ No', False), ('direction', '[ ] left [x] right', 'right'),
    ('letter', 'Option-C', 'C'), ('letter', 'The answer is option_c', 'C'), ('letter', 'I choose OptionC.', 'C'), ('letter', 'Either A or B, but more likely B', 'B'), ('letter', 'A or B. I lean towards A.', 'A'),
    ('number', '3 cups, 2 of which are red', 3), ('number', '5, of which 2 are red', 5), ('number', '5 cups, 2 of them red', 5), ('number', 'I see 3 of them', 3), ('number', '5 cups: 2 red, 3 blue', 5), ('number', '5 in total: 2 red and 3 blue', 5),
    ('direction', 'Up\nLeft', 'top left'), ('direction', 'up as well as to the right', 'top right'), ('direction', 'it goes up while moving right', 'top right'), ('direction', 'not to the left but to the right', 'right'),
    ('direction', 'not towards the top but the bottom', 'bottom'), ('direction', 'It came from the top and left through the bottom.', 'bottom'), ('direction', 'moving from bottom to top, so top', 'top')]
NEIGHBOURS += [   # a breaker's, written before the rules were seen
    ('letter', '答案是B', 'B'), ('letter', '选C，因为它是圆的', 'C'), ('letter', '正解はDです。', 'D'), ('letter', '정답은 B입니다.', 'B'), ('letter', 'A不是，B是。', 'B'),
    ('letter', '答案不是B', None), ('letter', 'A不对', None), ('letter', '是A吗？', None), ('letter', '答案：A或B', None), ('letter', '答案：A、B', None), ('letter', 'Bではない', None),
    ('letter', 'B가 아닙니다', None), ('letter', '图A里有一只狗，图B里有一只猫。', None), ('letter', '卡拉OK', None), ('letter', 'A is a cup. C is the better match.', 'C'),
    ('letter', 'Is A better?', None), ('number', 'At 3:45 pm', None), ('number', 'The clock shows 10:10.', None), ('number', 'At 3:45 there were 4.', 4), ('number', 'Count:4', 4),
    ('direction', 'It stands upright.', None), ('direction', 'upright, then to the left', 'left'), ('direction', 'topright', 'top right'),
    ('yes_no', 'YES\nNO\nYES', None), ('yes_no', 'yes\nyes\nno', None), ('yes_no', 'No.\nNo.\nNo.', False), ('yes_no', 'The animal has no wings.', None),
    ('yes_no', 'It has no wings, so yes.', True), ('yes_no', 'Y', True), ('yes_no', 'Answer: n', False), ('yes_no', 'N.', False)]


NEIGHBOURS += [   # a denial or a refusal some words before what it denies; it ends with its clause
    *((parser, said.format(x), None) for parser, x in (('letter', 'B'), ('number', '3'), ('direction', 'left'), ('yes_no', 'yes'), ('yes_no', 'no')) for said in (
        "I'm not able to answer with {}", 'I am unable to say {}.', 'I refuse to answer {}', 'It is hard to say {}', "I'm not sure the answer is {}", "I don't think the answer would be {}",
        'There is no way to tell whether it is {}', "I'd hesitate to say {}", 'It is not clearly {}', 'It is unclear whether it is {}', 'I lack the information to answer {}', 'I would avoid {}')),
    *((parser, said.format(x), right) for parser, x, right in (('letter', 'B', 'B'), ('number', '3', 3), ('direction', 'left', 'left'), ('yes_no', 'yes', True), ('yes_no', 'no', False)) for said in (
        "It's not hard to see that it is {}", 'I would not hesitate to say {}', "I'm not sure, but {}", "I can't see it well, so {}.", 'Hard to tell. {}.', 'Hard to say: {}', 'I cannot help but say {}')),
    ('letter', 'There is no doubt that it is B', 'B'), ('letter', 'I cannot see the dog in picture A', None), ('letter', 'B can be ruled out', None), ('letter', 'It is hard to miss B', 'B'),
    ('letter', "I'm not able to pick the object", None), ('letter', 'I cannot see a dog in A, only in B.', 'B'), ('direction', 'It did not leave through the top.', None), ('yes_no', "I'd go with no", False),
    ('yes_no', 'no, yes it is', None), ('yes_no', "yes, no it isn't", None), ('yes_no', 'no yes it is', None), ('yes_no', 'Yeah, no.', None), ('yes_no', 'Well no, yes, it is', None),
    ('yes_no', 'No. Yes it is.', None), ('yes_no', 'yes;no', None), ('yes_no', 'yes - no it is not', None), ('yes_no', 'No, wait, yes it is', True), ('yes_no', 'No it is not.', False),
    ('yes_no', 'Yes is wrong.', None), ('yes_no', 'No is not correct', None), ('yes_no', 'Yes would be incorrect', None), ('yes_no', 'Yes is the answer', True), ('yes_no', 'Nope, it is not', False)]


@pytest.mark.parametrize('parser, reply, right', NEIGHBOURS)
def test_neighbours_of_known_forms(parser, reply, right):
    got = strict(dict(parser=parser, reply=reply, options=['bird', 'object', 'label', 'choice'])).answer
    assert (got, type(got)) == (right, type(right))


READERS = dict(letter=lambda t, rule='strict': parse_letter(t, BIRDS, rule), number=parse_number, direction=parse_direction, yes_no=parse_yes_no)
SAID = dict(letter=(*'ABCD', None), direction=(*DIRECTIONS, None), yes_no=(True, False, None))
PIECES = ['A', 'b)', '(C)', 'D. sea duck', 'a gull', 'not ', 'wait, ', 'no, ', 'yes', 'Is it ', '?', '. ', ', ', ' or ', '\n', '\n- ', '<think>', '</think>', '[THINK]', '<reasoning>',
          '<|channel|>final<|message|>', '\\boxed{', '}', '{"answer": "', '"', '**', 'Answer: ', 'the ', 'left', 'top', 'up and to the ', 'right', 'twenty', '-', 'one', ' hundred and ', '1,000', '3.5',
          '1. ', '½', '²', '٣', '9'*40, 'the third ', ' of ', '\ud800', '\0', '\u202e', '\u00a0', 'İ', 'ſ', '¤', '§', '🅱️', '$', '_', '`', '\\text{']
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.text(st.characters(), max_size=8)), max_size=40).map(''.join)


def check_any(text):
    "No parser raises, each says something of its kind, and the same twice."
    for name, read in READERS.items():
        for rule in ('strict', 'legacy'):
            v = read(text, rule=rule)
            assert v == read(text, rule=rule) and v.rule
            if name == 'number': assert v.answer is None or (type(v.answer) is int and v.answer >= 0)
            else: assert v.answer in SAID[name]


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_any_reply_gets_a_verdict_of_its_kind_twice_the_same(text): check_any(text)


@pytest.mark.skipif(not os.environ.get('BABYVLM_SLOW'), reason='ten minutes; set BABYVLM_SLOW=1')
def test_ten_minutes_of_replies_raise_nothing():
    @settings(max_examples=2000, deadline=None, database=None)
    @given(TEXTS)
    def fuzz(text): check_any(text)
    until = time.monotonic() + 600
    while time.monotonic() < until: fuzz()


UNITS = {'words': 'yes A left one ', 'lines': 'A. gull\n', 'blank': 'A\n\n \n', 'digits': '1', 'listed': '1. x\n', 'alternatives': '1 or 2 or ', 'joined': 'up and to the ', 'thoughts': '<think>', 'nested': '<think><reasoning></analysis>',
         'boxes': '\\boxed{', 'fields': '{"answer": "A", ', 'turns': 'wait, ', 'questions': 'Is it A? ', 'quotes': '"', 'stars': '*', 'odd': '\ud800\0\u202e', 'hundreds': 'one hundred and '}


@pytest.mark.parametrize('unit', UNITS.values(), ids=UNITS)
def test_the_time_grows_with_the_length_and_not_with_its_square(unit):
    "Ten times the text takes at most thirty times as long (a square: a hundred), once it can be measured."
    def seconds(read, n):
        text, start = 'z' + unit*(n//len(unit)) + 'Z', time.process_time()
        read(text)
        return time.process_time() - start
    def grows_slowly(read): return seconds(read, 10**5) < 30 * max(seconds(read, 10**4), 0.02)
    for name, read in READERS.items(): assert any(grows_slowly(read) for _ in range(3)), name   # a square fails each time


def test_a_megabyte_is_read():
    for read in READERS.values(): read('A. gull \ud800\n'*10**5)


@pytest.mark.parametrize('rule', ['strict', 'legacy', 'devcv'])
@pytest.mark.parametrize('text', ['ſix', 'sİx', 'fıve', '٣', '²', '1²'], ids=ascii)
def test_letters_that_only_fold_to_a_number_word_do_not_raise(text, rule):
    got = parse_number(text, rule).answer
    assert got is None or isinstance(got, int)


# what changes of single signs showed

def test_one_option_has_a_letter_and_none_or_too_many_are_refused():
    assert parse_letter('A', 1).answer == 'A' and parse_letter('Z', 26).answer == 'Z'
    for n in (0, 27):
        with pytest.raises(ValueError, match=f'{n} options: 1 to 26'): parse_letter('A', n)


def test_blank_lines_are_one_and_typography_goes():
    assert plain(' a\n\n\n\nb\nc \t d ') == 'a\n\nb\nc d' and plain('**A** _b_ `c` $3$ \\text{d}') == 'A b c 3 d' and plain(None) == ''


def test_the_last_of_two_final_messages_counts():
    assert final_message('analysis one assistantfinal A assistantfinal B') == 'B'
    assert final_message('<|channel|>final<|message|>A<|end|><|channel|>final<|message|>B<|end|>C') == 'B'
    assert final_message('<|channel|>analysis<|message|>A') == '' and final_message('before <think>x</think> after') == 'after' and final_message('before <think>x</think>') == 'before'


@pytest.mark.parametrize('options, reply, answer, rule', [
    (BIRDS, 'I think A. It looks grey. B.', 'A', 'answer'), (BIRDS, 'A. gull', 'A', 'label'), (BIRDS, 'A', 'A', 'letter'), (BIRDS, 'Final answer: C', 'C', 'final answer'),
    (BIRDS, 'it shows (B)', 'B', 'mention'), (BIRDS, 'a duck', 'C', 'option text'), (BIRDS, 'a duck and a gull', None, 'two answers'), (BIRDS, 'Answer: A. duck', None, 'letter and text differ'),
    (4, 'It is grey. B.', 'B', 'label'), (4, 'B because it is grey', 'B', 'label'), (BIRDS, 'C - duck', 'C', 'label'), (4, 'B is correct', 'B', 'answer'),
    (4, 'B. Wait, no. C', 'C', 'label'), (4, 'A is wrong, B', 'B', 'mention'), (4, 'Is it A?', None, 'no answer'), (4, 'vitamin A', None, 'no answer'), (4, 'an A', 'A', 'mention'),
    (4, 'I choose:\n\nB', 'B', 'answer'), (4, 'A: no\nB: yes\nC: no\nD: no', 'B', 'label'), (BIRDS, 'I see. B) gull', None, 'letter and text differ'), (4, 'I see. B) gull', 'B', 'mention'),
    (4, 'I choose B. Final answer: C', 'C', 'final answer'), (4, 'Final answer: C. I choose B.', 'C', 'final answer'), (BIRDS, 'not A', None, 'negated'), (BIRDS, 'hm', None, 'no answer'), (BIRDS, '', None, 'empty'), (BIRDS, 'A. gull\nB. albatross\nC. duck\nD. sea duck', None, 'options repeated')])
def test_a_verdict_names_its_rule(options, reply, answer, rule):
    v = parse_letter(reply, options)
    assert (v.answer, v.rule) == (answer, rule)


@pytest.mark.parametrize('read, reply, answer, rule', [
    (parse_number, '3', 3, 'number'), (parse_number, 'I see 3 cups and 4 dogs. In total 7.', 7, 'answer'), (parse_number, '3 or 4', None, 'two answers'), (parse_number, '3.5', None, 'not a whole count'),
    (parse_number, '3. Yes', 3, 'number'), (parse_number, '7 (7 cups)', 7, 'label'), (parse_number, 'There are exactly 4 (1 red).', 4, 'label'), (parse_number, 'Count: 3 dogs and 4 cats', 3, 'answer'),
    (parse_number, '1, 2, 3', None, 'two answers'), (parse_yes_no, 'yes 2', None, 'no answer'), (parse_yes_no, 'x, no', False, 'word'), (parse_number, '', None, 'empty'), (parse_number, 'none', None, 'no answer'), (parse_number, 'one hundred and twenty-three', 123, 'number'), (parse_number, 'a hundred', 100, 'number'),
    (parse_direction, 'Left.', 'left', 'direction'), (parse_direction, 'to the left', 'left', 'mention'), (parse_direction, 'left or right', None, 'two answers'), (parse_direction, '', None, 'empty'),
    (lambda t: parse_direction(t, ('top', 'left')), 'right', None, 'not an option'), (parse_yes_no, 'Yes, I see one.', True, 'word'), (parse_yes_no, '', None, 'no answer')])
def test_the_other_readers_name_their_rule_too(read, reply, answer, rule): assert (read(reply).answer, read(reply).rule) == (answer, rule)


@pytest.mark.parametrize('reply', ['Thought: A\nAnswer: B', 'Observation: A\n\n**Best answer:** B', 'I looked at A\nCorrect option: B'])
def test_a_heading_on_the_next_line_confirms_no_mention(reply): assert parse_letter(reply, ['cat', 'dog', 'bird', 'fish']).answer == 'B'
