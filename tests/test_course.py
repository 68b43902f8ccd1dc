"""The course: an exercise has a statement, a solution and a check that explains.

One command makes a copy for students and a copy for teachers."""
import contextlib, io, re
from pathlib import Path

import nbformat
import pytest

from stpm_nb.press.course import stpm_course

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
    stpm_course(out)
    return {who: {p.stem: nbformat.read(p, as_version=4) for p in (out/who).glob('*.ipynb')}
            for who in ('student', 'teacher')}

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
            sealed = rf"check_answer{own}\w+, '[0-9a-f]{{8}}'\)"
            assert re.fullmatch(sealed, check.source), f'{id}: the answer is not sealed'

def test_both_copies_have_every_notebook_and_are_valid(copies):
    for who, nbs in copies.items():
        assert set(nbs) == set(SOURCE) - ({'teaching'} if who == 'student' else set())
        for name, nb in nbs.items():
            nbformat.validate(nb)
            text = '\n'.join(c.source for c in nb.cells if c.cell_type == 'markdown')
            for link in re.findall(r'\]\(([\w./]+\.ipynb)', text):
                assert Path(link).stem in nbs and '/' not in link, f'{who}/{name} links to {link}'

def test_student_copy_has_no_solution(copies):
    open_line = re.compile(r'def .*|    ".*"|    raise NotImplementedError  .*|\w+ = \.\.\.  .*')
    for name, nb in copies['student'].items():
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
        kept = {c.id: c for c in copies['student'][name].cells}
        for cell in (c for c in nb.cells if not tagged(c)):
            assert kept[cell.id].source == flat(cell.source)
            if cell.cell_type == 'code' and cell.id not in checks: assert kept[cell.id].outputs == cell.outputs

def test_teacher_copy_has_the_solutions_folded(copies):
    for name, nb in SOURCE.items():
        twins = list(zip(nb.cells, copies['teacher'][name].cells, strict=True))
        assert all(flat(a.source) == b.source for a, b in twins)
        assert all(b.metadata['jupyter']['source_hidden'] for a, b in twins if tagged(a))

def said(source, ns):
    "What a check prints, or the sentence of its AssertionError."
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out): exec(source, ns)
    except AssertionError as e: return str(e)
    return out.getvalue()

def stops(*args): raise ValueError('two\nlines')

def wrong_answers(right):
    "Answers of the same kind that are wrong."
    if isinstance(right, str): return [v for v in 'abcde' if v != right]
    if isinstance(right, tuple): return [right[::-1], right[1:], (*right, 1), tuple(2*n for n in right)]
    if isinstance(right, (int, float)): return [right * 2, right / 1000, -right - 1, right * 1.3 + 10]
    if not callable(right): return [0 * right]
    def twisted(*a):
        value = right(*a)
        return not value if isinstance(value, bool) else 3 * value if isinstance(value, (int, float)) else 7
    return [lambda *a: None, stops, lambda *a: 'seven', twisted]

@pytest.mark.parametrize('name', WITH)
def test_checks_tell_right_from_open_and_wrong(name, copies):
    ns, (found, setup), open_ = {}, exercises(SOURCE[name]), exercises(copies['student'][name])[0]
    for cell in setup: exec(cell.source, ns)
    for id, e in found.items():
        given, answer, check = parts(e)
        for cell in given: exec(cell.source, ns)
        exec(parts(open_[id])[1].source, ns)
        assert said(check.source, ns) == f'{id} is still open.\n'
        asked = re.findall(r'^(?:def )?(\w+)(?: = \.\.\.|\()', parts(open_[id])[1].source, re.M)
        assert len(asked) == 1, f'{id} asks for {asked}'
        if id not in LEARNS:
            exec(answer.source, ns)
            assert said(check.source, ns) == f'✓ {id} is right.\n'
            right = ns[asked[0]]
        else: right = {'03.5': 'b', '13.9': ns.get('masks')}[id]
        for wrong in wrong_answers(right):
            ns[asked[0]] = wrong
            sentence = said(check.source, ns)
            assert re.fullmatch(rf'{re.escape(id)}: \S[^\n]*\.', sentence), f'{id}, given {wrong!r}, says: {sentence}'
            if not callable(right) and id != '13.9':
                shown = {str(right), f'{right:.3g}' if isinstance(right, (int, float)) else f"'{right}'"}
                words = sentence.removeprefix(f'{id}: ').removesuffix('.')
                assert not any(re.search(rf'(?<![\w.]){re.escape(v)}(?![\w.])', words) for v in shown), sentence
