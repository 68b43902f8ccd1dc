"The first five minutes without a network: why weights cannot be had, an old PyTorch, an untrained teacher in balance."
import http.server, threading

import pytest
import torch
from torch.torch_version import TorchVersion
from torchvision.models import ResNet18_Weights

from stpm_nb.tool.commands import stpm_demo, stpm_predict
from stpm_nb.detector import Detector
from stpm_nb.features import balance, make_teacher, pyramid, weights_file
from stpm_nb.data import normalise, split_train_val
from stpm_nb.tool.readers import load_category
from stpm_nb.tool.synthetic import make_synthetic

@pytest.fixture
def page(tmp_path, monkeypatch):
    "A proxy that answers every request with a page, in place of the server with the weights."
    class Page(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args): pass
        def do_HEAD(self):
            self.send_response(200)
            self.end_headers()
        def do_GET(self):
            self.do_HEAD()
            self.wfile.write(b'<html>Please log in</html>')
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f'http://127.0.0.1:{server.server_port}/resnet18-f37072fd.pth'
    monkeypatch.setattr(ResNet18_Weights.IMAGENET1K_V1.value, 'url', url)
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path/'hub'))
    yield
    server.shutdown()
    server.server_close()

def said(call, kind=FileNotFoundError):
    "What the call says when it fails: one line."
    with pytest.raises(kind) as e: call()
    assert '\n' not in str(e.value)
    return str(e.value)

def test_a_page_in_place_of_the_weights(page, tmp_path):
    text = said(make_teacher)
    assert "cannot be downloaded (RuntimeError('invalid hash value" in text
    assert str(tmp_path/'hub'/'checkpoints') in text
    assert not any((tmp_path/'hub').rglob('*.p*'))                                    # nothing half-written is left

def test_a_folder_that_cannot_be_written_to(page, tmp_path, monkeypatch):
    (tmp_path/'file').write_text('')
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path/'file'/'hub'))
    text = said(make_teacher)
    assert 'cannot be downloaded (NotADirectoryError(' in text and str(tmp_path/'file'/'hub') in text

def test_weights_cut_short(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path))
    weights_file().parent.mkdir()
    torch.save(make_teacher(None).state_dict(), weights_file())
    weights_file().write_bytes(weights_file().read_bytes()[:10_000])
    text = said(make_teacher)
    assert 'cannot be read (' in text and 'Delete it. Put the file resnet18-f37072fd.pth' in text
    assert weights_file().stat().st_size == 10_000                                    # the user's file stays

def test_the_demo_says_why_it_goes_on_without_weights(page, tmp_path, capsys):
    make_synthetic(tmp_path/'out', n_train=6, n_test=1, size=64)
    stpm_demo(tmp_path/'out', epochs=1, device='cpu')
    out = capsys.readouterr().out
    assert 'invalid hash value' in out and 'UNTRAINED teacher, balanced on your good images' in out
    assert '128 x 128 pixels' in out

def test_an_old_pytorch_reads_no_files(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, '__version__', TorchVersion('2.9.1'))
    text = said(lambda: stpm_predict('model.pt', 'photos'), SystemExit)
    assert text.startswith('stpm_predict: PyTorch 2.9.1') and "pip install 'torch>=2.10'" in text

def test_fit_balances_an_untrained_teacher_and_the_model_file_keeps_it(tmp_path):
    category = load_category(make_synthetic(tmp_path, n_train=10, n_test=1, size=64), size=64)
    detector = Detector(None, 'cpu').fit(category, epochs=1, progress=False)
    learned = make_teacher(None)
    balance(learned, category.train[split_train_val(10)[0]])  # the part that the student learns from, not the other
    detector.save(tmp_path/'model.pt')
    again = Detector.load(tmp_path/'model.pt', 'cpu')
    for teacher in (detector.teacher, again.teacher):
        pairs = zip(teacher.state_dict().values(), learned.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert not again.teacher.training and not any(p.requires_grad for p in again.teacher.parameters())

def test_balance_makes_features_differ():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        images = torch.randint(0, 256, (33, 3, 64, 64), dtype=torch.uint8)  # two batches of nearly the same size
    def alike(teacher):
        v = torch.nn.functional.normalize(pyramid(teacher, normalise(images[:1]))[2], dim=1)[0].flatten(1)
        return (v.T @ v).mean().item()
    before, after = make_teacher(None), balance(make_teacher(None), images)
    assert alike(after) < alike(before) - .1
    twice = balance(balance(make_teacher(None), images[:5]), images)     # no memory of earlier images
    assert torch.equal(twice.bn1.running_mean, after.bn1.running_mean)
    assert not after.training
