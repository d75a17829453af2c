"""Plant the mistakes of this field's history one by one in a copy of the package; a test has to notice each.

`python tests/planted_bugs.py [--only NAME] [--jobs N]` prints one line a bug and writes tests/reliability/planted_bugs.json.
"""
import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from mutation import RESULTS, ROOT, Trial, run, write


@dataclass(frozen=True)
class Bug:
    "A mistake: what the code says, what it says then, and the tests that should notice."
    what: str
    file: str
    old: str       # '' puts `new` at the end of the file
    new: str
    tests: str     # file::test, several with a space between

    def trial(self, name):
        text = (ROOT/'babyvlm'/self.file).read_text()
        if self.old and text.count(self.old) != 1:
            raise ValueError(f"{name}, {self.file}: expected once, found {text.count(self.old)} times: {self.old}")
        new = text.replace(self.old, self.new) if self.old else f'{text}\n{self.new}\n'
        return Trial(name, self.file, new, self.nodes)

    @property
    def nodes(self): return tuple(f'tests/test_{t}' for t in self.tests.replace('::', '.py::test_').split())


V1, DEVCV, ITEMS, HIERARCHY = 'benchmarks/v1.py', 'benchmarks/devcv/score.py', 'items.py', 'benchmarks/hierarchy/metrics.py'
PARSING, ESTIMATE, HUB, PROBING = 'benchmarks/parsing.py', 'estimate.py', 'models/hub_models.py', 'analysis/probing.py'
SHARED, PROTOCOLS, PICTURES = 'models/shared_reading.py', 'benchmarks/protocols.py', 'pictures.py'
NAME = "str({}).rpartition('/')[2]".format
ANSWERS = '''
_plant = parse_item
def parse_item(item, text, rule='strict'):
    v = _plant(item, text, rule)
    return Verdict(0, 'guess') if v.answer is None else v
'''
FIRST = "def _strict_letter(text, letters, texts): return Verdict(next((c for c in text.upper() if c in letters), None), 'letter')"
ONLY_NEW = '''left = [i for i in batch if journal is None or i.uid not in journal]
    got = {r.uid: r for r in ask(left)}
    replies = [got[i.uid] if i.uid in got else journal.done[i.uid] for i in batch]'''

HISTORY = {
    '1a': Bug('a tie goes to the first candidate, V1', V1, 'float(shares(scores, mode)[gold])', "float(shares(scores, 'reference')[gold])",
              'v1::constant_scorer'),
    '1b': Bug('a tie goes to the first candidate, DevCV', DEVCV, 'reply_shares(reply, len(item.options))', "reply_shares(reply, len(item.options), 'reference')",
              'credit::a_constant_scorer_gets_one_of_k'),
    '2': Bug('the first letter anywhere is the answer', PARSING, '', FIRST, 'parsing::every_reply_gets_the_readers_verdict'),
    '3a': Bug('no answer becomes the first option', PARSING, '', ANSWERS, 'parsing::items_of_each_kind'),
    '3b': Bug('no answer earns chance', DEVCV, '[0. if s is None else float(s @ x)', '[float(x.mean()) if s is None else float(s @ x)',
              'devcv::number_scores_and_rules'),
    '4a': Bug('no answer leaves the denominator', V1, 'enumerate(rows) if r.reply.status != Status.SKIPPED)', 'enumerate(rows) if r.reply.status == Status.ANSWERED)',
              'v1::no_answer_stays_in_the_mean_and_skipped_does_not'),
    '4b': Bug('skipped items are not counted', DEVCV, 'len(items) - len(kept) + (before.seen - before.kept if before else 0)', '0',
              'devcv::each_fault_is_named_and_counted'),
    '4c': Bug('a missing answer moves the others up', HIERARCHY, '[answer(i) for i in scored]', '[a for i in scored if (a := answer(i)) is not None]',
              'hierarchy::a_missing_answer_keeps_the_others_at_their_levels'),
    '5a': Bug('the last level of a path is not compared', HIERARCHY, '[level - 1] if len(path) >= level', '[level - 1] if len(path) > level',
              'hierarchy::levels_of_a_score_are_the_accuracies_of_the_levels'),
    '5b': Bug('the last level is not asked', 'data/taxonomy.py', 'for level in range(1, taxonomy.depth + 1):', 'for level in range(1, taxonomy.depth):',
              'taxonomy::the_truth_stands_at_every_place_alike'),
    '6': Bug('the right option always comes first', 'data/taxonomy.py', 'rng.random(shown.shape).argsort(1)', 'rng.random(shown.shape).argsort(1).argsort(1) * 0 + np.arange(shown.shape[1])',
             'taxonomy::the_truth_stands_at_every_place_alike'),
    '7a': Bug('the key lacks how pictures are decoded', 'data/filters.py', 'encoder=encoder_id, draft=draft, shard', 'encoder=encoder_id, shard',
              'filters::another_encoder_or_text_is_another_artifact'),
    '7b': Bug('the key lacks the version', 'store.py', 'dict(stage=stage, version=version, config=config,\n', 'dict(stage=stage, config=config,\n',
              'store::keys_differ_exactly_when_requests_do'),
    '7c': Bug('the key lacks the texts', 'data/filters.py', 'zip(*columns, shown)', 'zip(*columns[:2], shown)', 'filters::another_encoder_or_text_is_another_artifact'),
    '7d': Bug('the key lacks the settings of the data', 'experiments/v1.py', "mode='json'), data=data, threads", "mode='json'), threads",
              'v1_recipe::other_data_settings_are_another_artifact'),
    '8a': Bug('a batch without a label trains on', 'training/trainer.py', 'if not told.any(): raise', 'if False: raise', 'generative::reference_unk_removes_words_and_names_empty_batches'),
    '8b': Bug('a loss over no word is a number', 'models/babyllava.py', 'if not on.any(): raise', 'if False: raise', 'babyllava::wrong_inputs_say_what_is_wrong'),
    '9': Bug('the best test epoch is the accuracy', PROBING, 'accuracy=score(chosen)', 'accuracy=score(top)', 'probing::reference_reports_the_best_test_epoch'),
    '9b': Bug('the penalty is chosen on test rows', PROBING, '~test & ~val, val, penalties', '~test & ~val, test, penalties',
              'probing::standardisation_and_choice_never_see_test_rows'),
    '10a': Bug('rows are resampled, not species', HIERARCHY, "[str(rows[n].get('label', p.true[i][-1])).lower() for i, n in enumerate(p.kept)]", 'list(p.kept)',
               'hierarchy::rows_are_clustered_by_species'),
    '10b': Bug('groups are ignored', V1, 'groups = [rows[k].group for k in credit.kept]', 'groups = None', 'v1::replies_and_items_must_fit'),
    '10c': Bug('items share their child, not their session', V1, 'return parse_name(name).session', 'return parse_name(name).child',
               'v1::items_share_their_session_not_their_child'),
    '11a': Bug('a share is shown as a percentage', DEVCV, '100*sum(out.values())', 'sum(out.values())', 'devcv::leaderboard'),
    '11b': Bug('a percentage passes as a share', DEVCV, 'not 0 <= v <= 1:', 'not 0 <= v <= 100:', 'devcv::leaderboard'),
    '12a': Bug('a difference is not paired', ESTIMATE, 'np.atleast_2d(a - b)', 'np.atleast_2d(a - np.roll(b, 1, -1))', 'estimate::differences_are_antisymmetric_and_paired'),
    '12b': Bug('a table of differences is not paired', ESTIMATE, 'paired_difference(outcomes[a], outcomes[b], clusters)',
               'paired_difference(np.sort(outcomes[a]), np.sort(outcomes[b])[::-1], clusters)', 'estimate::differences_are_antisymmetric_and_paired'),
    '13a': Bug('chance of another number of options, V1', V1, 'np.mean([1 / k for k in sizes])', 'np.mean([1 / (k + 1) for k in sizes])', 'v1::chance_is_one_of_k'),
    '13b': Bug('chance of another number of options, hierarchy', HIERARCHY, 'q = [1 / k for k in ks]', 'q = [1 / max(ks) for k in ks]',
               'hierarchy::guessing_by_hand_on_levels_of_two_three_and_four'),
    '13c': Bug('chance of another number of options, DevCV', DEVCV, 'float(np.mean([x.mean() for x in near]))', '.25', 'devcv::blind_is_at_chance'),
    '14a': Bug('a score that is no number is ranked', ITEMS, "if not np.isfinite(s).all():\n        raise ValueError(f\"item '{item.uid}'", "if False:\n        raise ValueError(f\"item '{item.uid}'",
               'items::not_finite_names_the_item'),
    '14b': Bug('a score that is no number is ranked, V1', V1, 'if not np.isfinite(np.asarray(r.scores, float)).all():', 'if False:',
               'v1::not_a_number_raises_in_every_mode_and_names_the_item'),
    '15a': Bug('embeddings of any length are cosines', PROTOCOLS, 'if len(wrong): raise', 'if False: raise', 'items::rows_that_are_not_unit_length_are_refused'),
    '15b': Bug('picture embeddings of any length', 'models/cvcl.py', 'return F.normalize(self.projection(pooled), dim=-1)', 'return self.projection(pooled)',
               'cvcl::published_sizes_load_and_agree_with_torchvision cvcl::round_trip'),
    '16a': Bug('rows of one group on both sides of a split', PROBING, "== 'rows' else np.asarray(groups)", "== 'rows' else np.arange(n)",
               'probing::groups_on_both_sides_of_given_test_rows_are_named'),
    '16b': Bug('pairs of one session on both sides of a split', 'data/saycam.py', "pairs['session'][:] if by == 'session'", "pairs['uid'][:] if by == 'session'",
               'saycam::no_session_is_parted'),
    '17a': Bug('a label twice counts twice', V1, 'if item.uid in seen: raise', 'if False: raise', 'v1::a_faulty_label_file_says_where_and_what'),
    '17b': Bug('an item twice overwrites a reply', PROTOCOLS, 'if double: raise', 'if False: raise', 'items::a_uid_twice_is_refused'),
    '17c': Bug('a pair twice counts twice', 'data/saycam.py', 'if uid in seen: raise', 'if False: raise', 'saycam::duplicates_and_missing_folders'),
    '18a': Bug('pictures of one name are one picture, dual encoders', PROTOCOLS, 'def __call__(self, name):',
               f"def __call__(self, name):\n        name = next(n for n in self.names if {NAME('n')} == {NAME('name')})", 'items::equal_file_names_in_two_folders_are_two_pictures'),
    '18b': Bug('pictures of one name are one picture, hub models', HUB, 'if images in self.seen: return self.seen[images]',
               f"same = [k for k in self.seen if [{NAME('i')} for i in k] == [{NAME('i')} for i in images]]\n    if same: return self.seen[same[0]]",
               'vlms::equal_file_names_in_two_folders_are_two_pictures'),
    '18c': Bug('a fingerprint by file name', ITEMS, 'if os.path.isfile(path): return _shows(str(path), os.stat(path).st_size, os.stat(path).st_mtime_ns)', 'return Path(path).name',
               'items::a_moved_folder_asks_the_same_and_another_picture_does_not'),
    '19a': Bug('padding counts as positions, language models', SHARED, "x['position_ids'] = (x['attention_mask'].cumsum(-1) - 1).clamp(min=0)", 'pass',
               'vlms::learned_positions_do_not_count_padding'),
    '19b': Bug('padding counts as positions, BabyLLaVA', 'models/babyllava.py', '(attention_mask.long().cumsum(-1) - 1).clamp(min=0)',
               'torch.arange(attention_mask.shape[1]).expand_as(attention_mask)', 'babyllava::positions_do_not_count_padding'),
    '20a': Bug('padding is attended to', SHARED, 'mask = torch.zeros_like(ids)', 'mask = torch.ones_like(ids)', 'vlms::order_and_company_do_not_matter'),
    '20b': Bug('positions left over from the batch before', HUB, 'core.rope_deltas = None', 'pass', 'vlms::a_batch_with_pictures_leaves_nothing_for_the_next'),
    '20c': Bug('a resumed batch is asked in other company', PROTOCOLS, 'replies = ask(batch)\n', ONLY_NEW + '\n', 'items::any_cut_resumes'),
}

OURS = {
    'ties unseen': Bug('ties are not counted', 'credit.py', "reply.scores is not None and best(reply.scores) is None", 'False', 'laws_metrics::ties_are_counted_where_the_best_scores_are_equal'),
    'strict tie': Bug('a tie is right in strict mode', 'credit.py', "if mode == 'strict': top &= top.sum(-1, keepdims=True) == 1", '', 'credit::modes_agree_without_ties_and_are_ordered_with_them'),
    'pick first': Bug('the first of equals goes on', 'credit.py', 'top[np.random.default_rng(list(uid.encode())).integers(len(top))]', 'top[0]',
                      'credit::a_pick_among_equals_favours_no_place_and_stays'),
    'wilson 90': Bug('a 90 % interval is called 95 %', ESTIMATE, 'z = ndtri((1 + level) / 2)', 'z = ndtri(level)', 'estimate::wilson_is_scipys_and_mirrors'),
    'no seed': Bug('the bootstrap ignores its seed', ESTIMATE, 'rng = np.random.default_rng(seed)', 'rng = np.random.default_rng()', 'estimate::seeds_matter_and_repeat'),
    'one-sided': Bug('both ends from one tail', ESTIMATE, '[(1 - level) / 2, (1 + level) / 2]', '[1 - level, level]', 'estimate::ends_agree_with_scipy'),
    'cluster sizes': Bug('clusters count alike whatever they hold', ESTIMATE, '(counts @ sizes)[:, None].astype(float)', 'float(len(x))', 'estimate::clustered_ends_agree_with_scipy_on_sums_and_sizes'),
    'seeds unheard': Bug('training seeds add nothing to the interval', ESTIMATE, 'np.maximum(seeds - both, seeds / (2 * (k - 1)))', '0 * seeds', 'estimate::seeds_that_differ_widen_and_groups_may_differ_by_seed'),
    'image and text': Bug('image and text score change places', V1, "'image_score': ((((0, 0), (1, 0)), ((1, 1), (0, 1))), 1/4)", "'image_score': ((((0, 0), (0, 1)), ((1, 1), (1, 0))), 1/4)",
                          'v1::golden_winoground'),
    'winoground tie': Bug('a tied instance is right', V1, 'ok &= better | (equal & (mode == \'fair\') & (rank[a] > rank[b]))', 'ok &= better | equal', 'v1::constant_scorer v1::golden_winoground'),
    'torn line': Bug('a line cut by a kill is read', ITEMS, "len(raw), raw.rfind(b'\\n') + 1", 'len(raw), len(raw)', 'items::any_cut_resumes'),
    'half artifact': Bug('an artifact is built where it is looked for', 'store.py', "final.with_name(f'{final.name}.{_code()[:8]}.part')", 'final',
                         'store::a_killed_build_leaves_nothing_finished_and_the_next_succeeds'),
    'input order': Bug('the order of inputs is not in the key', 'store.py', 'return [i.key if isinstance(i, Artifact) else str(i) for i in inputs]',
                       'return sorted(i.key if isinstance(i, Artifact) else str(i) for i in inputs)', 'store::inputs_that_change_places_are_another_artifact'),
    'threshold': Bug('a pair at the threshold stays', 'data/filters.py', 'keep = sim > threshold', 'keep = sim >= threshold', 'filters::the_threshold_is_strict_and_costs_no_encoding'),
    'selection order': Bug('a selection depends on the order of its pairs', 'data/filters.py', 'uids = tuple(sorted(self.uids))', 'uids = tuple(self.uids)',
                           'filters::a_selection_does_not_depend_on_order'),
    'split order': Bug('a split depends on the order of its pairs', 'data/saycam.py', 'order = [sorted(sizes)[i] for i', 'order = [list(sizes)[i] for i', 'laws::splits_do_not_depend_on_the_order_of_items'),
    'split leak': Bug('a group is dealt row by row', PROBING, 'return np.isin(code, taken)', 'return np.random.default_rng(seed).random(len(code)) < share', 'laws::groups_stay_together'),
    'copies': Bug('equal pool items go to the highest rows first', 'matching/exact.py', "order = np.argsort(out, kind='stable')", 'order = np.lexsort((-np.arange(len(out)), out))',
                  'matching::hub matching::equals_all_permutations laws::equal_copies_go_out_in_order'),
    'no proof': Bug('an assignment without proof comes back', 'matching/exact.py', 'if optimal and not gap <= 4e-12 * scale * max(len(x), 1):', 'if False:', 'laws::an_answer_without_proof_is_an_error'),
    'free seat': Bug('the price of a free seat is no slack', 'matching/exact.py', 'slack = np.r_[best + p[columns] - own, p[used < match.capacity], 0.]', 'slack = np.r_[best + p[columns] - own, 0.]',
                     'matching::a_false_proof_is_seen_through laws::a_price_on_a_free_seat_is_slack'),
    'one epoch': Bug('every epoch has the same order', 'training/samples.py', 'default_rng([self.seed, self.epoch])', 'default_rng(self.seed)', 'trainer::every_epoch_is_a_permutation'),
    'one side': Bug('the contrastive loss ranks texts only', 'models/cvcl.py', '(F.cross_entropy(logits, gold) + F.cross_entropy(logits.T, gold))/2', 'F.cross_entropy(logits, gold)',
                    'cvcl::loss_against_a_slow_one'),
    'accumulation': Bug('accumulated batches are means of means', 'models/babyllava.py', 'total/(on.sum() if num_items_in_batch is None else num_items_in_batch)', 'total/on.sum()',
                        'babyllava::accumulated_loss_is_the_batch_loss'),
    'turned': Bug('a picture stays on its side', PICTURES, 'im = ImageOps.exif_transpose(im)', 'pass', 'items::every_opener_shows_the_same_picture'),
    'level ten': Bug('levels are sorted as texts', HIERARCHY, "sorted(int(k[18:]) for k in row if k.startswith('ground_truth_level') and k[18:].isdecimal())",
                     "[int(l) for l in sorted(k[18:] for k in row if k.startswith('ground_truth_level') and k[18:].isdecimal())]", 'hierarchy::level_ten_follows_level_nine'),
    'memory': Bug('half a pair earns half', DEVCV, 'math.prod(r for r, p in zip(right[base:], pairs) if p == k)', 'np.mean([r for r, p in zip(right[base:], pairs) if p == k])',
                  'laws_metrics::a_learned_thing_counts_when_both_its_tests_are_right'),
    'least similar': Bug('similar choices are the least similar', 'data/taxonomy.py', 's.topk(k, 1).indices', '(-s).topk(k, 1).indices', 'laws::similar_choices_are_the_closest_names'),
    'question learned': Bug('the question is learned too', 'data/conversations.py', 'labels = [i if on else IGNORED for i, _, on in rows]', 'labels = [i for i, _, on in rows]',
                            'conversations::exactly_the_answers_are_learned_with_byte_pairs'),
}


def main(argv: Sequence[str] = None) -> int:
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--only', nargs='*', metavar='NAME', help='these bugs')
    p.add_argument('--jobs', type=int, default=1, help='trials at a time')
    a = p.parse_args(argv)
    bugs = {k: b for k, b in (HISTORY | OURS).items() if not a.only or k in a.only}
    whole = Trial('nothing planted', tests=tuple(dict.fromkeys(n for b in bugs.values() for n in b.nodes)))
    found = {}
    for end in run([whole, *(b.trial(k) for k, b in bugs.items())], a.jobs):
        found[end['name']] = end
        print(json.dumps({k: end[k] for k in end if k != 'took'}), flush=True)
    clean = found.pop('nothing planted')
    if clean['status'] != 'missed': raise SystemExit(f"the tests fail without a bug: {clean}")
    keep(found)
    return sum(found[k]['status'] == 'caught' for k in bugs) < len(bugs)


def keep(found: dict):
    "Results of the bugs that were tried now; the others keep theirs."
    path, every = RESULTS/'planted_bugs.json', HISTORY | OURS
    before = json.loads(path.read_text())['bugs'] if path.is_file() else {}
    tried = {k: dict(status=found[k]['status'], by=found[k]['by']) for k in every if k in found}
    rows = {k: dict(what=b.what, file=b.file, **{f: r[f] for f in ('status', 'by')}) for k, b in every.items() if (r := tried.get(k) or before.get(k))}
    caught = sum(r['status'] == 'caught' for r in rows.values())
    write('planted_bugs', dict(planted=len(rows), history=sum(k in HISTORY for k in rows), ours=sum(k in OURS for k in rows), caught=caught, bugs=rows))


if __name__ == '__main__': sys.exit(main())
