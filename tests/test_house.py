"""The house keeps its floors: how long, how wide and how dense the code is, who imports whom, how much a cell holds.

METHOD is the paper, readable in one sitting. TOOL is what a user touches, LAB what is measured and marked, PRESS what
is handed out. `nbs/more` exports nothing.
A limit is lowered when the code gets better, and raised only when something else is deleted.
`python tests/test_house.py` prints the table of all modules."""
import ast
import io
import json
import re
import tokenize
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
METHOD = 'data features loss train metrics detector'.split()
FLOORS = ['method', 'tool', 'lab', 'press']
LINES = dict(method=500, tool=797, lab=400, press=201)  # code lines of a floor, at most; the aim for the tool is 700
WIDTH = dict(method=110, tool=120, lab=120, press=120, more=120)
TOKENS = 13                                             # per line of a module; 12 on average over the method
REFUSALS = 4                                            # `raise` and `try` per module of the method
CELL_LINES, CELL_CHARACTERS = 20, 1400
LENT = 'synthetic', 'exercises'                         # what lessons of the method borrow: the fabric and the marks
NOT_CODE = tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER

def tokens(source):
    "The tokens of a Python text, comments and line ends left out; an f-string is one, as it was before Python 3.12."
    found, depth = [], 0
    for t in tokenize.generate_tokens(io.StringIO(source).readline):
        name = tokenize.tok_name[t.type]
        depth -= name.endswith('STRING_END')
        if not depth and t.type not in NOT_CODE and not name.endswith('STRING_END'): found.append(t)
        depth += name.endswith('STRING_START')
    return found

def tokens_per_line(source):
    "{line: tokens on it} of the lines with code, docstrings left out."
    texts = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
    docs = {line for n in texts for line in range(n.lineno, n.end_lineno + 1)}
    found = {}
    for t in tokens(source):
        for line in range(t.start[0], t.end[0] + 1):
            found[line] = found.get(line, 0) + 1
    return {line: n for line, n in found.items() if line not in docs}

def density(source):
    n = tokens_per_line(source).values()
    return sum(n) / len(n)

def widest(text): return max(len(line) for line in text.splitlines())

def refusals(text): return sum(isinstance(n, (ast.Raise, ast.Try)) for n in ast.walk(ast.parse(text)))

def semicolons(text): return sum(t.string == ';' for t in tokens(text) if t.type == tokenize.OP)

@cache
def modules():
    "{name: (floor, text)} of the library's modules, without the list of names that nbdev writes."
    files = sorted(p for p in (ROOT/'stpm_nb').rglob('*.py') if not p.name.startswith('_'))
    text = {p: re.sub(r'^__all__ = \[.*?\]\n', '', p.read_text(encoding='utf-8'), flags=re.S | re.M) for p in files}
    return {p.stem: ('method' if p.parent.name == 'stpm_nb' else p.parent.name, text[p]) for p in files}

@cache
def notebooks():
    "{name: (floor, cells)} of the book."
    files = sorted((ROOT/'nbs').rglob('*.ipynb'))
    floor = {p: p.parent.name if p.parent.name in WIDTH else 'method' if p.stem[0].isdigit() else 'more' for p in files}
    return {p.stem: (floor[p], json.loads(p.read_text(encoding='utf-8'))['cells']) for p in files}

def code(cell):
    "The code of a cell, without its lines `#| ...`; empty for a cell of text."
    if cell['cell_type'] != 'code': return ''
    return re.sub(r'^#\|.*\n?', '', ''.join(cell['source']), flags=re.M)

def exported(cell): return cell['cell_type'] == 'code' and ''.join(cell['source']).startswith('#| export')

def library_imports(text):
    "[(module, names)] that a text takes from the library."
    text = re.sub(r'\(\n([^)]*)\)', lambda m: ' '.join(m[1].split()), text)
    found = re.findall(r'^ *from (?:stpm_nb)?\.{1,2}(?:\w+\.)?(\w+) import (.+)$', text, re.M)
    return [(module, re.split(r', *', names)) for module, names in found]

def too_high(floor, text):
    "The modules on higher floors that a text imports."
    height = {name: FLOORS.index(f) for name, (f, _) in modules().items()}
    return [m for m, _ in library_imports(text) if height.get(m, 0) > FLOORS.index(floor)]

def test_every_module_of_the_method_is_there():
    assert [name for name, (floor, _) in modules().items() if floor == 'method'] == sorted(METHOD)
    assert {floor for floor, _ in modules().values()} == set(FLOORS)

@pytest.mark.parametrize('floor', FLOORS)
def test_a_floor_is_short(floor):
    lines = {name: len(tokens_per_line(text)) for name, (f, text) in modules().items() if f == floor}
    assert sum(lines.values()) <= LINES[floor], f'{sum(lines.values())} lines, at most {LINES[floor]}: {lines}'
    if floor == 'method': assert max(lines.values()) <= 140, lines

@pytest.mark.parametrize('name', modules())
def test_a_module_is_narrow_and_says_one_thing_a_line(name):
    floor, text = modules()[name]
    wide = [line for line in text.splitlines() if len(line) > WIDTH[floor]]
    assert not wide, f'wider than {WIDTH[floor]}:\n' + '\n'.join(wide)
    assert density(text) <= TOKENS, f'{density(text):.1f} tokens per line'
    assert not semicolons(text), 'two statements on a line'

def test_the_method_is_light():
    counts = [n for floor, text in modules().values() if floor == 'method' for n in tokens_per_line(text).values()]
    assert sum(counts) / len(counts) <= 12

@pytest.mark.parametrize('name', METHOD)
def test_the_method_refuses_little(name): assert refusals(modules()[name][1]) <= REFUSALS, 'the gate does the rest'

@pytest.mark.parametrize('name', modules())
def test_imports_point_downward_and_are_public(name):
    floor, text = modules()[name]
    private = [n for _, names in library_imports(text) for n in names if n.startswith('_') and not n.startswith('__')]
    assert not private, 'make them public or move them'
    assert not too_high(floor, text)

@pytest.mark.parametrize('name', notebooks())
def test_lessons_import_downward(name):
    floor, cells = notebooks()[name]
    if name[0].isdigit() and floor in FLOORS:
        high = [m for c in cells for m in too_high(floor, code(c)) if m not in LENT]
        assert not high

@pytest.mark.parametrize('name', notebooks())
def test_a_cell_holds_one_idea(name):
    floor, cells = notebooks()[name]
    for cell in filter(code, cells):
        text, where = code(cell).strip('\n'), f'{name} {cell["id"]}'
        plain = re.sub(r'^[%!].*$', '', text, flags=re.M)
        assert len(text.splitlines()) <= CELL_LINES, f'{where}: {len(text.splitlines())} lines'
        assert len(text) <= CELL_CHARACTERS, f'{where}: {len(text)} characters'
        assert not text or widest(text) <= WIDTH[floor], f'{where}: a line of {widest(text)}'
        assert not semicolons(plain), f'{where}: two statements on a line'

@pytest.mark.parametrize('name', notebooks())
def test_what_is_exported_is_introduced_and_shown(name):
    cells = notebooks()[name][1]
    coded = [c for c in cells if code(c).strip()]
    for a, b in zip(coded, coded[1:]):
        assert not (exported(a) and exported(b)), f'{name}: {a["id"]} is followed by {b["id"]}; show or check it first'
    for before, cell in zip(cells, cells[1:]):
        if exported(cell) and re.search(r'^(def|class) ', code(cell), re.M):
            assert before['cell_type'] == 'markdown', f'{name} {cell["id"]}: no sentence above'

@pytest.mark.parametrize('path', sorted((ROOT/'tests').glob('*.py')), ids=lambda p: p.name)
def test_tests_are_narrow_too(path):
    text = path.read_text(encoding='utf-8')
    wide = [f'{i}: {line}' for i, line in enumerate(text.splitlines(), 1) if len(line) > 120]
    assert not wide, '\n'.join(wide)
    assert not semicolons(text), 'two statements on a line'

if __name__ == '__main__':
    print(f'{"floor":8}{"module":14}{"lines":>6}{"tokens/line":>13}{"width":>7}{"raise + try":>13}')
    for floor in FLOORS:
        here = {name: text for name, (f, text) in modules().items() if f == floor}
        for name, text in here.items():
            row = len(tokens_per_line(text)), density(text), widest(text), refusals(text)
            print('{:8}{:14}{:6}{:13.1f}{:7}{:13}'.format(floor, name, *row))
        print(f'{floor:8}{"in all":14}{sum(len(tokens_per_line(text)) for text in here.values()):6}\n')
