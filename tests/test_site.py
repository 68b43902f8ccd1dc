"""The site of the whole book, without a browser: every page, link, figure, equation and badge.

`.ci/check_site` looks at it in a real one."""
import configparser, gc, json, re, tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup

from commands import warm
from stpm_nb.press.course import stpm_site
from stpm_nb.press.site import write_site

ROOT = Path(__file__).parent.parent
SETTINGS = configparser.ConfigParser(delimiters=['='])
SETTINGS.read(ROOT/'settings.ini')
CFG = SETTINGS['DEFAULT']
NOTEBOOKS = {p.stem: p.relative_to(ROOT).as_posix() for p in sorted((ROOT/'nbs').rglob('*.ipynb'))}
NAMES = list(NOTEBOOKS)

OUT = tempfile.TemporaryDirectory()
build = warm.Process(target=stpm_site, args=(OUT.name,))

@pytest.fixture(scope='module')
def site():
    "The built folder, and each page's HTML as a tree."
    build.start()
    build.join()
    assert build.exitcode == 0, 'the site cannot be built: run stpm_site'
    out = Path(OUT.name)
    pages = {p.stem: BeautifulSoup(p.read_text(), 'html.parser') for p in out.glob('*.html')}
    gc.freeze()                       # a million small objects that stay: the search for garbage leaves them out
    return out, pages

@pytest.mark.parametrize('name', NAMES)
def test_page_is_well_formed(site, name):
    page = site[1][name]
    assert page.html['lang'] == 'en' and page.find('meta', attrs={'name': 'viewport'}) and page.title.text
    assert len(page('h1')) == 1 and len(page('main')) == 1 and page.select_one('a.skip')['href'] == '#main'
    levels = [int(h.name[1]) for h in page.main.find_all(['h1', 'h2', 'h3', 'h4'])]
    assert levels[0] == 1 and all(b <= a + 1 for a, b in zip(levels, levels[1:])), levels
    ids = [e['id'] for e in page.select('[id]')]
    assert len(ids) == len(set(ids)) and all(h.get('id') for h in page.main.find_all(['h1', 'h2', 'h3', 'h4']))
    assert not [c for c in page.select('.code') if '\n#|' in '\n' + c.pre.text], 'a directive is shown'

@pytest.mark.parametrize('name', NAMES)
def test_contents_lists_every_page_and_marks_this_one(site, name):
    out, pages = site
    links = [a['href'] for a in pages[name].header('a')]
    assert [e.text for e in pages[name].select('header .floor')] == ['Method', 'Tool', 'Laboratory', 'More', 'Press']
    assert {f'{n}.html' for n in NAMES} <= set(links) and set(pages) == set(NAMES)
    assert [a['href'] for a in pages[name].select('[aria-current=page]')] == [f'{name}.html']
    assert {'#' + h['id'] for h in pages[name].main('h2')} <= set(links)
    for way, back in ('next', 'prev'), ('prev', 'next'):
        for a in pages[name].select(f'[rel={way}]'):
            assert pages[a['href'][:-5]].select_one(f'[rel={back}]')['href'] == f'{name}.html'

@pytest.mark.parametrize('name', NAMES)
def test_links_and_anchors_lead_somewhere(site, name):
    out, pages = site
    files = f"{CFG['git_url']}/blob/{CFG['branch']}/"
    for a in pages[name].select('a[href]'):
        url = urlsplit(a['href'])
        if a['href'].startswith(files): assert (ROOT/a['href'][len(files):]).exists(), a
        if url.scheme: continue
        page = pages.get(url.path[:-5]) if url.path else pages[name]
        assert page, f'no page for {a}'
        assert not url.fragment or page.find(id=unquote(url.fragment)), f'no such heading: {a}'

@pytest.mark.parametrize('name', NAMES)
def test_figures_are_there_and_have_alternative_text(site, name):
    out, pages = site
    for img in pages[name]('img'):
        assert (out/img['src']).stat().st_size > 0 and int(img['width']) > 0
        assert len(img['alt']) > 20, f"{img['src']}: its cell needs a line `#| fig-alt: ...`"

@pytest.mark.parametrize('name', NAMES)
def test_equations_are_mathml(site, name):
    page = site[1][name]
    for math in page('math'): assert math.text.strip() and '\\' not in math.text and '&' not in math.text, math
    words = [s for s in page(string=True) if not s.find_parent(['pre', 'code', 'math', 'script'])]
    assert not [s for s in words if '$' in s or '\\' in s], 'TeX is left in the text'

@pytest.mark.parametrize('name', NAMES)
def test_nothing_is_loaded_from_another_host(site, name):
    page = site[1][name]
    elements = page.select('[src], link[href], object, iframe')
    loaded = [e.get(k) for e in elements for k in ('src', 'href', 'data') if e.get(k)]
    assert loaded and not [u for u in loaded if urlsplit(u).scheme not in ('', 'data') or u.startswith('//')]
    assert not page.select('script[src]') and 'widget' not in ' '.join(s.text for s in page('script'))

@pytest.mark.parametrize('name', NAMES)
def test_badge_opens_this_notebook(site, name):
    repo = CFG['git_url'].removeprefix('https://github.com/')
    badge = site[1][name].find('a', string='Open in Colab')['href']
    assert badge == f"https://colab.research.google.com/github/{repo}/blob/{CFG['branch']}/{NOTEBOOKS[name]}"

def test_search_knows_every_section(site):
    "The front page holds the text of all sections, each with a link that leads there; every page has the field."
    pages = site[1]
    script = next(s.text for s in pages['index']('script') if 'SECTIONS' in s.text)
    sections = [json.loads(line.rstrip(',')) for line in re.findall(r'^\["\w+", .*\],$', script, re.M)]
    assert {page for page, *_ in sections} == set(NAMES)
    for page, id, title, text in sections:
        assert pages[page].find(id=id) and title and '<' not in title, (page, id)
    found = [(page, id) for page, id, _, text in sections if 'receptive field' in text.lower()]
    assert ('01_features', 'stride-and-receptive-field') in found and len(found) < len(sections) / 4
    for page in pages.values(): assert (page.header.form['action'], page.find(id='q')['name']) == ('index.html', 'q')

@pytest.mark.parametrize('name', NAMES)
def test_what_is_for_jupyter_is_not_shown(site, name):
    text = site[1][name].main.text
    assert 'Run this first' not in text and 'colab-badge' not in str(site[1][name])

def test_a_cell_says_what_it_needs(site):
    labels = {p.text for p in site[1]['05_detector'].select('.label.real')}
    assert labels == {'needs weights', 'needs $STPM_DATA/screw $STPM_RUNS/screw/model.pt'}

def test_lines_of_code_are_marked_where_they_go_on_in_print(site):
    for box in site[1]['04_metrics'].select('.code pre'):
        lines = [line.text for line in box.select('.line')]
        assert ''.join(lines) == box.text and all(line.count('\n') <= 1 for line in lines)
    assert '.line::before' in (ROOT/'nbs'/'site'/'site.css').read_text().partition('@media print')[2]

def test_style_needs_no_other_file():
    css = (ROOT/'nbs'/'site'/'site.css').read_text()
    assert 'url(' not in css and '@import' not in css

def test_students_get_a_site_without_solutions_that_links_to_their_notebooks(tmp_path):
    assert write_site(tmp_path, students=True) == len(NAMES) - 1
    text = {p.stem: p.read_text() for p in tmp_path.glob('*.html')}
    assert 'teaching' not in text and {name for name, page in text.items() if '# A solution' in page} <= {'16_course'}
    assert all(f'href="../{name}.ipynb"' in page and 'Open in Colab' not in page for name, page in text.items())
