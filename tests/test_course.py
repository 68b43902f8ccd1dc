"""The course: an exercise has a statement, a solution and a check that explains.

One command makes a copy for students, another marks what they hand in."""
import contextlib, csv, hashlib, io, json, re
from fractions import Fraction
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from answers import ANSWERS
from stpm_nb.lab import exercises as checks
from stpm_nb.press.course import stpm_course, stpm_mark

ROOT = Path(__file__).parent.parent
STATEMENT = re.compile(r'^### (\w+\.\d+) \S.*\n\n\*(Warm-up|Core|Harder|Project)\.\* \S')
LEARNS = {'03.5', '13.9'}           # their solutions train a student: the notebooks' own tests run them

def tagged(cell): return 'solution' in cell.metadata.get('tags', [])

def exercises(nb):
    "The exercises of a notebook: {id: dict(grade, statement, cells)}, in order, and the code cells that prepare them."
    found, setup, here = {}, [], None
    start = next((i for i, c in enumerate(nb.cells) if re.search(r'^## Exercises', c.source, re.M)), len(nb.cells))
    for cell in nb.cells[start:]:
        if cell.cell_type == 'markdown':
            here = STATEMENT.match(cell.source)
            if here: found[here[1]] = dict(grade=here[2], statement=cell.source, cells=[])
        elif here and 'cleanup()' not in cell.source: found[here[1]]['cells'].append(cell)
        elif not found: setup.append(cell)
    return found, setup

def parts(exercise):
    "(cells that prepare it, its solution, its check)."
    *given, answer, check = exercise['cells']
    return given, answer, check

SOURCE = {p.stem: nbformat.read(p, as_version=4) for p in sorted((ROOT/'nbs').rglob('*.ipynb'))}
WITH = [name for name, nb in SOURCE.items() if exercises(nb)[0]]
# the notebooks of the tool and the laboratory are for reference: not each has exercises
LESSONS = [p.stem for folder in ('', 'more') for p in sorted((ROOT/'nbs'/folder).glob('[01]*.ipynb'))]

@pytest.fixture(scope='module')
def copies(tmp_path_factory):
    out = tmp_path_factory.mktemp('course')
    stpm_course(out, site=False)
    assert 'stpm_nb[students] @ git+' in (out/'student'/'requirements.txt').read_text(encoding='utf-8')
    return {p.stem: nbformat.read(p, as_version=4) for p in (out/'student').glob('*.ipynb')}

def test_there_are_enough_of_every_grade():
    assert set(LESSONS) <= set(WITH), 'a lesson has no exercises'
    ids = [(id, e['grade']) for name in WITH for id, e in exercises(SOURCE[name])[0].items()]
    assert len(ids) >= 40 and len(dict(ids)) == len(ids), 'too few, or one number twice'
    assert {grade for _, grade in ids} == {'Warm-up', 'Core', 'Harder', 'Project'}
    assert sum(grade == 'Project' for _, grade in ids) >= 4

@pytest.mark.parametrize('name', WITH)
def test_each_exercise_has_statement_solution_and_check(name):
    for k, (id, e) in enumerate(exercises(SOURCE[name])[0].items(), 1):
        given, answer, check = parts(e)
        assert id == f'{name.split("_")[0]}.{k}', f'{id} is out of order'
        right_place = tagged(answer) and not tagged(check) and not any(map(tagged, given))
        assert right_place, f'{id}: the cell before the check is its solution'
        own = re.escape(f"('{id}', ")
        assert re.search(rf'^check_(answer|facts|function){own}', check.source, re.M), f'{id} has no check of its own'
        if 'check_answer(' in check.source:
            sealed = rf"check_answer{own}\w+, '[0-9a-f]{{8}}( [0-9a-f]{{8}})*'(, {{.*}})?\)"
            assert re.fullmatch(sealed, check.source, re.S), f'{id}: the answer is not sealed'

@pytest.mark.parametrize('name', WITH)
def test_solutions_are_folded_behind_a_line_that_gives_nothing_away(name):
    for cell in filter(tagged, SOURCE[name].cells):
        assert cell.metadata['jupyter'] == {'source_hidden': True}, cell.source
        assert cell.source.startswith('# A solution\n'), cell.source

def test_the_copy_has_every_notebook_and_is_valid(copies):
    assert set(copies) == set(SOURCE) - {'teaching'}
    for name, nb in copies.items():
        nbformat.validate(nb)
        text = '\n'.join(c.source for c in nb.cells if c.cell_type == 'markdown')
        for link in re.findall(r'\]\(([\w./]+\.ipynb)', text):
            assert Path(link).stem in copies and '/' not in link, f'{name} links to {link}'

def test_no_notebook_gives_an_answer_of_another_one(copies):
    given = {'01.3': r'(?<![.\d])435\b', '05.1': r'(?i)\b99 (good )?(photos|images|scores)|ninety-nine',
             '13.1': r'\b917[,_]?504\b', '03.1': r'\b293\.6', '00.1': r'\b125\.8', '08.4': r'\b537\.9|\b538\b'}
    for name, nb in copies.items():
        text = '\n'.join(c.source for c in nb.cells)
        for id, answer in given.items(): assert not re.search(answer, text), f'{name} gives {id}'

def test_student_copy_has_no_solution(copies):
    open_line = re.compile(r'def .*|    ".*"|    raise NotImplementedError  .*|\w+ = \.\.\.  .*')
    for name, nb in copies.items():
        assert not any(map(tagged, nb.cells)), name
        everything = '\n'.join(c.source for c in nb.cells)
        assert not re.search(r'<summary>Solution', everything), name
        for cell in filter(tagged, SOURCE[name].cells): assert cell.source not in everything, name
        for id, e in exercises(nb)[0].items():
            given, answer, check = parts(e)
            assert all(open_line.fullmatch(line) for line in answer.source.splitlines()), f'{id}:\n{answer.source}'
            assert not answer.outputs and not check.outputs, f'{id} shows what a solution puts out'

def flat(text):
    "A text with the links of notebooks that all lie in one folder."
    return re.sub(r'\]\([\w./]*/(\w+\.ipynb)', r'](\1', text)

def test_everything_else_is_in_the_student_copy(copies):
    for name, nb in SOURCE.items():
        if name in ('index', 'teaching'): continue
        checks = {parts(e)[2].id for e in exercises(nb)[0].values()}
        kept = {c.id: c for c in copies[name].cells}
        assert not any('colab.research' in c.source for c in kept.values()), 'the badge leads to the solutions'
        for cell in (c for c in nb.cells if not tagged(c) and 'colab.research' not in c.source):
            assert kept[cell.id].source == flat(cell.source)
            if cell.cell_type == 'code' and cell.id not in checks: assert kept[cell.id].outputs == cell.outputs

def said(source, ns):
    "What a check prints, or the sentence of its AssertionError."
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out): exec(source, ns)
    except AssertionError as e: return str(e)
    return out.getvalue()

def stops(*args): raise ValueError('two\nlines')

def in_digits(n, v): return float(f'{v:.{n - 1}e}')

def right_forms(right):
    "Ways to write the same number or letter."
    if isinstance(right, str): return [right, right.upper(), f' {right} ', f'{right})', f'({right}).']
    if float(right).is_integer(): return [int(right), float(right), f'{right:.0f}', Fraction(right), *whole(right)]
    two, three, four = (in_digits(n, right) for n in (2, 3, 4))
    return [two, three, right, f'{four}', torch.tensor(right), np.float32(three)]

def whole(v): return [torch.tensor(v), np.array([v])]

def wrong_forms(right):
    "Answers of the same kind, and of others, that are wrong."
    if isinstance(right, str): return [*(v for v in 'abcd' if v != right), 'e', 7, None]
    if float(right).is_integer(): return [right + 1, right - 1, -right, 2 * right, right * 1.048576, 'seven', None]
    two, step = in_digits(2, right), 10.**int(f'{right:e}'[-3:])
    third = [in_digits(3, in_digits(3, right) + k * step / 100) for k in (3, 4)]
    third = next(v for v in third if v != in_digits(2, v))
    return [two + step / 10, third, -right, right * 1000, right * 1.0004, 'seven', None]

def forms(id, right, ns):
    "(right answers, wrong answers) of an exercise, the solution's first."
    if id not in ANSWERS: return right_forms(right), wrong_forms(right)
    good, bad = ([eval(text, dict(ns, np=np, torch=torch, f=right)) for text in texts] for texts in ANSWERS[id])
    return [right, *good], [*bad, *([lambda *a: None, stops, lambda *a: 'seven'] if callable(right) else [])]

def fast(monkeypatch, ns, right):
    "Names with a check whose seals cost no time; it takes its seal from the right answer."
    def check(id, answer, sealed, why={}): return checks.check_answer(id, answer, checks.seal(id, right))
    monkeypatch.setattr(checks, '_slow', lambda e, text, n=4: hashlib.shake_128(f'{e} {text}'.encode()).digest(n))
    return dict(ns, check_answer=check)

def told(solution):
    "{letter: what the comments of a solution say about it}."
    return dict(re.findall(r'^# ([a-d]): (.+)', solution, re.M))

def test_every_exercise_that_asks_for_a_function_has_its_answers():
    found = {id: parts(e)[2].source for name in WITH for id, e in exercises(SOURCE[name])[0].items()}
    asks = {id for id, check in found.items() if 'check_answer(' not in check}
    assert asks - LEARNS == set(ANSWERS)
    few = {id for id, (good, bad) in ANSWERS.items() if len(good) < 2 or len(bad) < 3}
    assert few <= {'12.4', '13.10', '13.11'}, 'at least two right forms besides the solution, and three wrong ones'

@pytest.mark.parametrize('name', WITH)
def test_checks_tell_right_from_open_and_wrong(name, copies, monkeypatch):
    ns, (found, setup), open_ = {}, exercises(SOURCE[name]), exercises(copies[name])[0]
    for cell in setup: exec(cell.source, ns)
    for id, e in found.items():
        given, answer, check = parts(e)
        for cell in given: exec(cell.source, ns)
        exec(parts(open_[id])[1].source, ns)
        assert said(check.source, ns) == f'{id} is still open.\n'
        asked = re.findall(r'^(?:def )?(\w+)(?: = \.\.\.|\()', parts(open_[id])[1].source, re.M)
        assert len(asked) == 1, f'{id} asks for {asked}'
        if id == '13.9': continue
        if id in LEARNS: ns[asked[0]] = 'b'
        else: exec(answer.source, ns)
        right, says = ns[asked[0]], told(answer.source)
        assert said(check.source, ns).splitlines()[-1] == f'✓ {id} is right.'
        for letter, why in says.items():              # what is under a veil is what the solution's comments say
            ns[asked[0]] = letter
            assert said(check.source, ns).splitlines()[0] == (f'{why}.' if letter == right else f'{id}: {why}.')
        with monkeypatch.context() as patch:
            quick = fast(patch, ns, right) if 'check_answer(' in check.source else ns
            good, bad = forms(id, right, ns)
            for v in good: assert '✓' in said(check.source, quick | {asked[0]: v}), f'{id} refuses {v!r}'
            for v in bad:
                sentence = said(check.source, quick | {asked[0]: v})
                assert re.fullmatch(rf'{re.escape(id)}: \S[^\n]*\.', sentence), f'{id}, given {v!r}, says: {sentence}'

def test_near_misses_are_named_and_nothing_else_is_suspected():
    for right, answer, part in ((125.83, 120, 'MiB'), (4, 4.19, 'MiB'), (99, -99, 'sign'), (99, 98, 'one too'),
                                (.05, 20, 'upside'), (.24, .76, 'rest'), (7.083, 425, 'factor'), (99, 1, 'not yet'),
                                (99, 'many', 'a number')):
        says = said('check("0", a, s)', dict(check=checks.check_answer, a=answer, s=checks.seal('0', right)))
        assert part in says, f'{answer} for {right}: {says}'

def test_a_guess_costs_a_hundredth_of_a_second():
    from time import process_time
    start = process_time()
    for n in range(10): checks.seal('0', n)
    assert process_time() - start > .03                          # on a machine three times as fast

def hand_in(path, name, answers):
    "A lesson as a student hands it in: {number of the exercise: source}."
    book = json.loads(next((ROOT/'nbs').rglob(f'{name}.ipynb')).read_text(encoding='utf-8'))
    numbers = iter(exercises(SOURCE[name])[0])
    for cell in book['cells']:
        if 'solution' in cell['metadata'].get('tags', []): cell['source'] = answers.get(next(numbers), 'pass')
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(book), encoding='utf-8')

def test_what_was_handed_in_is_marked(tmp_path):
    better = 'import statistics as st\ndef better(a, b):\n    return st.mean(a) > st.mean(b)'
    hand_in(tmp_path/'in'/'ada'/'09_categories (1).ipynb', '09_categories', {
        '09.1': 'import os\nos._exit(0)', '09.2': better})
    (tmp_path/'in'/'bob').mkdir()
    (tmp_path/'in'/'bob'/'09_categories.ipynb').write_text('not a notebook', encoding='utf-8')
    stpm_mark(str(tmp_path/'in'), str(tmp_path/'marks.csv'))
    rows = list(csv.reader((tmp_path/'marks.csv').read_text(encoding='utf-8-sig').splitlines()))
    assert [row[:3] for row in rows[1:]] == [
        ['ada', '09.1', 'wrong'], ['ada', '09.2', 'wrong'], ['bob', '09_categories', 'wrong']]
    assert 'the end of Python' in rows[1][3] and 'within our own spread' in rows[2][3]
