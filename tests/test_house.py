"""The house keeps its floors: how long, how wide and how dense the code is, who imports whom, how much a cell holds.

Each number is a ceiling. It is lowered when the code gets better, and raised only when something else is deleted.
`python tests/test_house.py` prints the numbers of today."""
import ast, io, json, re, tokenize
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
METHOD = 'data features loss train metrics detector'.split()
TOOL = 'synthetic download readers commands'.split()
FLOOR = {name: 0 for name in METHOD} | {name: 1 for name in TOOL}                 # all others, the laboratory, stand on floor 2
NOT_CODE = tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER

def tokens(source):
    "The tokens of a Python text, comments and line ends left out."
    return [t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type not in NOT_CODE]

def tokens_per_line(source):
    "{line: tokens on it} of the lines with code, docstrings left out."
    texts = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
    docs = {line for n in texts for line in range(n.lineno, n.end_lineno + 1)}
    found = {}
    for t in tokens(source):
        for line in range(t.start[0], t.end[0] + 1): found[line] = found.get(line, 0) + 1
    return {line: n for line, n in found.items() if line not in docs}

def modules():
    "{name: text} of the library's modules, without the list of names that nbdev writes."
    files = sorted(p for p in (ROOT/'stpm_nb').rglob('*.py') if not p.name.startswith('_'))
    return {p.stem: re.sub(r'^__all__ = \[.*?\]\n', '', p.read_text(), flags=re.S | re.M) for p in files}

def notebooks():
    "{name: cells} of the book."
    return {p.stem: json.loads(p.read_text())['cells'] for p in sorted((ROOT/'nbs').rglob('*.ipynb'))}

def code(cell): return ''.join(cell['source']) if cell['cell_type'] == 'code' else ''

def exported(cell): return code(cell).startswith('#| export')

def library_imports(text):
    "[(module, names)] that a text takes from the library."
    found = []
    for module, names in re.findall(r'^ *from (?:stpm_nb)?\.{1,2}(?:\w+\.)?(\w+) import (.+)$', text, re.M):
        found.append((module, re.split(r', *', names)))
    return found

def widest(text): return max(len(line) for line in text.splitlines())

def refusals(text): return sum(isinstance(n, (ast.Raise, ast.Try)) for n in ast.walk(ast.parse(text)))

def semicolons(text): return sum(t.string == ';' for t in tokens(text))

def upward(name, text):
    "The modules on higher floors that a module imports."
    return [m for m, _ in library_imports(text) if FLOOR.get(m, 2) > FLOOR.get(name, 2)]

@cache
def house():
    "{what is counted: its number today}."
    texts, books = modules(), notebooks()
    lines = {name: tokens_per_line(text) for name, text in texts.items()}
    dense = {name: sum(n.values()) / len(n) for name, n in lines.items()}
    method, cells = [lines[name] for name in METHOD], [c for book in books.values() for c in book]
    numbers = {
        'code lines of the method': sum(map(len, method)),
        'code lines of the library': sum(map(len, lines.values())),
        'code lines of the longest module': max(map(len, lines.values())),
        'tokens per line of the method': round(sum(sum(n.values()) for n in method) / sum(map(len, method)), 1),
        'tokens per line of the densest module': round(max(dense.values()), 1),
        'widest line of the method': max(widest(texts[name]) for name in METHOD),
        'widest line of the library': max(map(widest, texts.values())),
        'raise and try in the method': sum(refusals(texts[name]) for name in METHOD),
        'two statements on a line': sum(map(semicolons, texts.values())),
        'private names across modules': sum(name.startswith('_') and not name.startswith('__') for text in texts.values()
                                            for _, names in library_imports(text) for name in names),
        'imports of a higher floor': sum(len(upward(name, text)) for name, text in texts.items()),
        'lessons of the method that import a higher floor': sum(bool(upward(name[3:], code(c))) for name, book in books.items()
                                                                 if name[3:] in METHOD for c in book),
        'code cells over 20 lines': sum(len(code(c).splitlines()) > 20 for c in cells),
        'code cells over 1,400 characters': sum(len(code(c)) > 1400 for c in cells),
        'exported cells right after one another': sum(exported(a) and exported(b) for book in books.values()
                                                      for a, b in zip(code_cells(book), code_cells(book)[1:])),
        'exported cells without prose above': sum(exported(c) and book[i-1]['cell_type'] != 'markdown' for book in books.values()
                                                  for i, c in enumerate(book) if i and 'def ' in code(c)),
    }
    return numbers

def code_cells(book): return [c for c in book if code(c).strip()]

CEILING = {
    'code lines of the method': 758,
    'code lines of the library': 1684,
    'code lines of the longest module': 191,
    'tokens per line of the method': 14.0,
    'tokens per line of the densest module': 18.4,
    'widest line of the method': 187,
    'widest line of the library': 190,
    'raise and try in the method': 84,
    'two statements on a line': 20,
    'private names across modules': 20,
    'imports of a higher floor': 0,
    'lessons of the method that import a higher floor': 13,
    'code cells over 20 lines': 47,
    'code cells over 1,400 characters': 51,
    'exported cells right after one another': 24,
    'exported cells without prose above': 6,
}

@pytest.mark.parametrize('what', CEILING)
def test_house(what): assert house()[what] <= CEILING[what], f'{what}: {house()[what]}, at most {CEILING[what]}'

if __name__ == '__main__':
    for what, number in house().items(): print(f'    {what!r}: {number},')
