"""Answers to the exercises that ask for a function or a shape: right ones in other forms, and wrong ones.

Each is an expression; `f` is the book's solution, other names are those of the notebook. Numbers and choices need no
list: their forms are made from the right answer."""
ANSWERS = {
    '00.2': ([
        'lambda x: f(x.double())', 'lambda x: f(x).clone()',
        'lambda x: torch.floor(((x * torch.tensor(IMAGENET_STD).view(3, 1, 1)) +'
        ' torch.tensor(IMAGENET_MEAN).view(3, 1, 1)).clamp(0, 1) * 255 + .5).byte()'], [
        'lambda x: f(x).float()', 'lambda x: (255 * x).round().clamp(0, 255).byte()', 'lambda x: f(x)[0]',
        'lambda x: ((x * torch.tensor(IMAGENET_STD).view(3, 1, 1) + torch.tensor(IMAGENET_MEAN).view(3, 1,'
        ' 1)) * 255).round().int().byte()', 'lambda x: f(x) // 2']),
    '00.4': ([
        'lambda m, k: m.view(len(m) // k, k, len(m) // k, k).any(3).any(1)',
        'lambda m, k: F.avg_pool2d(m[None].float(), k)[0] > 0', 'lambda m, k: ~(f(m, k) == False)'], [
        'lambda m, k: m[::k, ::k]', 'lambda m, k: F.avg_pool2d(m[None].float(), k)[0] >= .5',
        'lambda m, k: f(m, k).float()', 'lambda m, k: f(m, k).T', 'lambda m, k: ~f(m, k)']),
    '00a.2': ([
        'lambda a, b: (a.int() - b.int()).abs().sum(0) > 0', 'lambda a, b: ~(a == b).all(0)',
        'lambda a, b: (a.float() - b.float()).abs().amax(0) > 0'], [
        'lambda a, b: (a != b).all(0)', 'lambda a, b: a != b', 'lambda a, b: (a > b).any(0)',
        'lambda a, b: (a.int() - b.int()).abs().amax(0) > 8', 'lambda a, b: a[0] != b[0]']),
    '00a.4': ([
        'lambda i, m, k: torch.where(m, (i.double() * k).round().clamp(0, 255).byte(), i)',
        'lambda i, m, k: f(i.clone(), m, float(k))', 'lambda i, m, k: f(i, m[None], k)'], [
        'lambda i, m, k: torch.where(m, i * int(k), i)', 'lambda i, m, k: (i * k).round().clamp(0, 255).byte()',
        'lambda i, m, k: f(i, ~m, k)', 'lambda i, m, k: f(i, m, k).float()',
        'lambda i, m, k: torch.where(m, (i.float() * k).clamp(0, 255), i).byte()']),
    '00b.3': ([
        'lambda p: not posixpath.normpath("x/" + p).startswith("..") and p[0] != "/" and f(p)',
        'lambda p: bool(f(str(p)))', 'lambda p: int(f(p))'], [
        'lambda p: ".." not in p', 'lambda p: not p.startswith("..")', 'lambda p: not f(p)',
        'lambda p: posixpath.normpath(posixpath.join("/in", p)).startswith("/in")', 'lambda p: p[0] != "/"']),
    '00c.2': ([
        'lambda p: (p.stem.rsplit("_", 1) + [""])[0] if p.stem.rsplit("_", 1)[-1].isdigit() and "_" in'
        ' p.stem else None', 'lambda p: f(Path(p.name))', 'lambda p: f(p) or None'], [
        'lambda p: p.stem.split("_")[0]', 'lambda p: p.stem.rsplit("_", 1)[0]', 'lambda p: p.name', 'lambda p: ""',
        'lambda p: f(p) or ""']),
    '01.1': ([
        'list(f)', 'torch.Size(f)', 'torch.tensor(f)', 'np.array(f)', 'tuple(map(str, f))'], [
        'f[1:]', '(8, 64, 128, 64)', '(8, 128, 32, 32)', '(8, 64, 64, 64)', '(1, *f[1:])', '64', '"seven"']),
    '02.3': ([
        'lambda t, s: 1 - F.cosine_similarity(t, s, dim=1) if (t != 0).any() else f(t, s)',
        'lambda t, s: f(t.double(), s.double())', 'lambda t, s: f(t, s).numpy()',
        'lambda t, s: (F.normalize(t, dim=1) - F.normalize(s, dim=1)).square().sum(1) / 2'], [
        'cosine_distance', 'lambda t, s: cosine_distance(t, s)', 'lambda t, s: 1 - F.cosine_similarity(t, s)',
        'lambda t, s: 2 * f(t, s)', 'lambda t, s: -f(t, s)', 'lambda t, s: f(t, s).mean()']),
    '02.4': ([
        'lambda t, s: f(t, s).double()', 'lambda t, s: f(t, s).numpy()', 'lambda t, s: f(t, s).tolist()',
        'lambda t, s: torch.stack([cosine_distance(a, b).flatten(1).mean(1) for a, b in zip(t, s)]).sum(0)'], [
        'pyramid_loss', 'lambda t, s: f(t, s) / 3', 'lambda t, s: f(t, s).flip(0)',
        'lambda t, s: sum(cosine_distance(a, b).sum((1, 2)) for a, b in zip(t, s))',
        'lambda t, s: f(t[:2], s[:2])', 'lambda t, s: f(t, s)[:, None]']),
    '02.5': ([
        'lambda t, s, n: f(t, s, n).double()', 'lambda t, s, n: f(t, s, n).numpy()',
        'lambda t, s, n: f([*t], [*s], n)',
        'lambda t, s, n: torch.stack([anomaly_map((a,), (b,), n) for a, b in zip(t, s)]).amax(0)'], [
        'anomaly_map', 'lambda t, s, n: f(t, s, n)[0]', 'lambda t, s, n: -f(t, s, n)',
        'lambda t, s, n: f(t, s, n) * 2', 'lambda t, s, n: f(t[:1], s[:1], n)']),
    '03.3': ([
        'lambda e: 1 + min(range(len(e)), key=e.__getitem__)', 'lambda e: float(f(e))',
        'lambda e: torch.tensor(f(e))', 'lambda e: 1 + torch.tensor(e).argmin()'], [
        'lambda e: e.index(min(e))', 'lambda e: len(e)', 'lambda e: min(e)', 'lambda e: 1 + e.index(max(e))',
        'lambda e: len(e) - e[::-1].index(min(e))']),
    '03.4': ([
        'lambda e, n: torch.tensor(f(e, n))', 'lambda e, n: (torch.tensor(e) * torch.tensor(n)).sum() / sum(n)',
        'lambda e, n: __import__("numpy").average(e, weights=n)',
        'lambda e, n: __import__("numpy").float32(f(e, n))'], [
        'lambda e, n: sum(e) / len(e)', 'lambda e, n: sum(a * b for a, b in zip(e, n))', 'lambda e, n: -f(e, n)',
        'lambda e, n: f(e, n) / len(e)', 'lambda e, n: e[0]']),
    '04.3': ([
        'lambda s, l: f(s, l).item()', 'lambda s, l: f(s.double(), l)', 'lambda s, l: f(s, l).numpy()',
        'lambda s, l: ((s[l][:, None] - s[~l]).sign().mean() + 1) / 2'], [
        'image_auroc', 'lambda s, l: image_auroc(s, l)', 'lambda s, l: 1 - f(s, l)',
        'lambda s, l: (s[l][:, None] > s[~l]).float().mean()',
        'lambda s, l: (s[l][:, None] >= s[~l]).float().mean()']),
    '04.4': ([
        'lambda h, m, t: float(f(h, m, t))', 'lambda h, m, t: f((h >= t).astype(float), m, 1)',
        'lambda h, m, t: torch.tensor(f(h, m, t))', 'lambda h, m, t: np.float64(f(h, m, t))'], [
        'lambda h, m, t: (h[m] >= t).mean()', 'lambda h, m, t: (h[m] > t).mean()', 'lambda h, m, t: 1 - f(h, m, t)',
        'lambda h, m, t: f(h, m, t + 1e-9)', 'lambda h, m, t: 2 * f(h, m, t)']),
    '05.2': ([
        'lambda s, r: f(s, r).item()',
        'lambda s, r: sorted(s.tolist())[::-1][min(int(r * len(s) + 1e-6), len(s) - 1)]',
        'lambda s, r: f(s.double(), r)',
        'lambda s, r: min(v for v in s.tolist() if sum(s.tolist()[i] > v for i in range(len(s))) <= r *'
        ' len(s) + 1e-9)'], [
        'lambda s, r: s.sort(descending=True).values[min(int(r * len(s)), len(s) - 1)]',
        'lambda s, r: s.sort(descending=True).values[min(round(r * len(s)), len(s) - 1)]', 'lambda s, r: s.max()',
        'lambda s, r: s.quantile(1 - r)', 'lambda s, r: s.sort().values[min(int(r * len(s) + 1e-9), len(s) - 1)]']),
    '05.3': ([
        'lambda s, l, t: [v.item() for v in f(s, l, t)]', 'lambda s, l, t: torch.stack(f(s, l, t))',
        'lambda s, l, t: tuple((s[l == k] > t).double().mean() for k in (0, 1))'], [
        'lambda s, l, t: f(s, l, t)[::-1]', 'lambda s, l, t: f(s, l, t - 1e-4)', 'lambda s, l, t: f(s, 1 - l, t)',
        'lambda s, l, t: ((s > t).float().mean(),) * 2', 'lambda s, l, t: f(s, l, t)[0]']),
    '05.4': ([
        'lambda w, *v: tuple(a.double() for a in f(w, *v))', 'lambda w, *v: list(f(w, *v))',
        'lambda w, g, b, m, v: (w * (g / (v + 1e-5)**.5).view(-1, 1, 1, 1), b - m * g / (v + 1e-5)**.5)'], [
        'lambda w, g, b, m, v: (w * (g / v).view(-1, 1, 1, 1), b - m * g / v)', 'lambda w, *v: (w, f(w, *v)[1])',
        'lambda w, g, b, m, v: f(w, g, b, 0*m, v)', 'lambda w, g, b, m, v: f(w, g, 0*b, m, v)',
        'lambda w, g, b, m, v: (f(w, g, b, m, v)[0], b - m)']),
    '06.3': ([
        'lambda t: __import__("numpy").float64(f(t))', 'lambda t: float(f(t))',
        'lambda t: (lambda r: sum(x[3] == "1" for x in r[1:]) / (len(r) - 1))([*csv.reader(io.StringIO(t))])'], [
        'lambda t: t.count(",1\\n") / t.count("1")',
        'lambda t: sum(r.split(",")[3] == "1" for r in t.split()[1:]) / 2', 'lambda t: 1 - f(t)',
        'lambda t: f(t) / 2', 'lambda t: t.count("1") / (t.count("\\n") - 1)']),
    '08.3': ([
        'lambda *a: np.float32(f(*a))', 'lambda g, m, s, b: max(m / (1000 * b), g / s)',
        'lambda *a: np.array(f(*a))'], [
        'lambda g, m, s, b: g / s + m / 1000 / b', 'lambda g, m, s, b: max(g / s, m / b)', 'lambda *a: 2 * f(*a)',
        'lambda g, m, s, b: min(g / s, m / 1000 / b)', 'lambda g, m, s, b: g / s']),
    '08.7': ([
        'lambda n, s: float(f(n, s))', 'lambda n, s: f(n.astype(np.float64), s)',
        'lambda n, s: np.cov(np.log(n), np.log(s))[0, 1] / np.log(n).var(ddof=1)'], [
        'lambda n, s: np.polyfit(n, s, 1)[0]', 'lambda n, s: np.polyfit(np.log(s + 1e-9), np.log(n), 1)[0]',
        'lambda n, s: np.log(s[-1] / s[0]) / np.log(n[-1] / n[0])', 'lambda n, s: f(n, s) * np.log(2)',
        'lambda n, s: np.polyfit(np.log(n), np.log(s), 1)[1]']),
    '09.2': ([
        'lambda a, b: int(f(a, b))', 'lambda a, b: __import__("numpy").bool_(f(a, b))',
        'lambda a, b: f([*a], tuple(b))'], [
        'lambda a, b: sum(a) - sum(b) > 0.03', 'lambda a, b: sum(a) > sum(b)', 'lambda a, b: not f(a, b)',
        'lambda a, b: sum(a)/len(a) - sum(b)/len(b) > max(__import__("statistics").pstdev(v) for v in (a, b))',
        'lambda a, b: sum(a)/len(a) > sum(b)/len(b)']),
    '10.3': ([
        'lambda s: tuple(f(s))', 'lambda s: f(s[::-1])', 'lambda s: [p for p in dict.fromkeys(f(s))]'], [
        'lambda s: f(s) * 2', 'lambda s: f(s)[::-1]', 'lambda s: sorted({x.patient for x in s if x.patient})',
        'lambda s: []', 'lambda s: [x.patient for x in s if x.split == "train"]']),
    '10.4': ([
        'lambda d: tuple(f(d))', 'lambda d: f(Path(str(d)))', 'lambda d: [*f(d)]'], [
        'lambda d: f(d)[::-1]', 'lambda d: f(d)[:4]', 'lambda d: [s for s in f(d) if s.label]', 'lambda d: []',
        'lambda d: [s for s in f(d) if s.split == "train"]']),
    '11.2': ([
        'lambda n, r: int(r * (n + 1) + 1e-9)', 'lambda n, r: float(f(n, r))',
        'lambda n, r: torch.tensor(f(n, r))'], [
        'lambda n, r: int(r * n)', 'lambda n, r: f(n, r) + 1', 'lambda n, r: max(1, f(n, r))',
        'lambda n, r: round(r * (n + 1))', 'lambda n, r: n - f(n, r)']),
    '11.3': ([
        'lambda g, b, t: f(g.double(), b.double(), t)', 'lambda g, b, t: str(f(g, b, t))',
        'lambda g, b, t: "".join(f(g, b, t))'], [
        'lambda g, b, t: "fine"', 'lambda g, b, t: f(b, g, t)', 'lambda g, b, t: f(g, b, t).upper()',
        'lambda g, b, t: "threshold" if f(g, b, t) == "photos" else f(g, b, t)',
        'lambda g, b, t: f(g, b, t) == "fine"']),
    '12.2': ([
        'lambda s, h: float(f(s, h))', 'lambda s, h: np.int64(f(s, h))', 'lambda s, h: torch.tensor(f(s, h))'], [
        'lambda s, h: f(s, h) + 1', 'lambda s, h: max(2, f(s, h) - 1)', 'lambda s, h: 2',
        'lambda s, h: max(2, int((1.96 * s / h)**2) + 1)', 'lambda s, h: f(s, 2 * h)']),
    '12.3': ([
        'lambda d, l, n: f(d, l, n).double()', 'lambda d, l, n: f([*d], [*l], n)',
        'lambda d, l, n: f(d, l, n).clone()'], [
        'lambda d, l, n: f(d, l, n) ** len(l)', 'lambda d, l, n: f(d, (1, 2, 3), n)',
        'lambda d, l, n: f(d, l, n)[0]', 'lambda d, l, n: sum(f(d, (k,), n) for k in l) / len(l)',
        'lambda d, l, n: torch.stack([f(d, (k,), n) for k in l]).prod(0) ** (1 / len(l))']),
    '12.4': ([
    ], [
        'lambda s, t, k: image_auroc(s[0], t) + 1', 'lambda s, t, k: max(image_auroc(v, t) for v in s)',
        'lambda s, t, k: .5', 'lambda s, t, k: f(s, t, 0)', 'lambda s, t, k: 1 - f(s, t, k)']),
    '13.3': ([
        'lambda m, k: f(m, k).double()', 'lambda m, k: f(m, k).numpy()',
        'lambda m, k: m.flatten(1).sort(descending=True).values[:, :k].mean(1)',
        'lambda m, k: torch.stack([torch.topk(v.flatten(), k)[0].mean() for v in m])'], [
        'lambda m, k: torch.stack([v[v >= v.flatten().topk(k).values[-1]].mean() for v in m])',
        'lambda m, k: m.flatten().topk(k).values.mean()', 'lambda m, k: m.amax((1, 2))', 'lambda m, k: -f(m, k)',
        'lambda m, k: m.flatten(1).topk(k).values.sum(1)', 'lambda m, k: m.flatten(1).topk(k).values[:, -1]']),
    '13.5': ([
        'lambda t, s, a: float(f(t, s, a))', 'lambda t, s, a: f(t, s, a).double()',
        'lambda t, s, a: f([*t], [*s], [*a])'], [
        'lambda t, s, a: f(t, s, a) / sum(a)', 'lambda t, s, a: pyramid_loss(t, s)',
        'lambda t, s, a: f(t, s, a[::-1])', 'lambda t, s, a: -f(t, s, a)',
        'lambda t, s, a: f(t, s, [v * v for v in a])']),
    '13.6': ([
        'lambda a, b: [float(v) for v in f(a, b)]', 'lambda a, b: np.array(f(a, b))',
        'lambda a, b: np.float32(f(a, b))',
        'lambda a, b: stats.t.interval(.95, len(a) - 1, np.mean(np.subtract(a, b)), max(1e-12,'
        ' stats.sem(np.subtract(a, b))))'], [
        'lambda a, b: f(b, a)', 'lambda a, b: f(a, b)[::-1]', 'lambda a, b: (f(a, b)[0], f(a, b)[0])',
        'lambda a, b: (min(f(a, b)) / 2, max(f(a, b)) * 2)',
        'lambda a, b: np.mean(np.subtract(a, b)) + np.array([-1.96, 1.96]) * np.std(np.subtract(a, b),'
        ' ddof=1) / len(a)**.5']),
    '13.7': ([
        'lambda t, s, n: f(t, s, n).double()', 'lambda t, s, n: f([*t], [*s], n)',
        'lambda t, s, n: f(t, s, n).numpy()'], [
        'anomaly_map', 'lambda t, s, n: anomaly_map(t, s, n)', 'lambda t, s, n: f(t, s, n) / 512',
        'lambda t, s, n: f(t, s, 8)', 'lambda t, s, n: f(t[:2], s[:2], n)']),
    '13.8': ([
        'lambda w, x, t, lr: f(w.clone(), x, t, lr)', 'lambda w, x, t, lr: f(w, x, t, 1.) * lr + w * (1 - lr)',
        'lambda w, x, t, lr: f(w, x, t, lr) + 0'], [
        'lambda w, x, t, lr: w', 'lambda w, x, t, lr: 2*w - f(w, x, t, lr)', 'lambda w, x, t, lr: f(w, x, t, 2*lr)',
        'lambda w, x, t, lr: w.copy_(f(w, x, t, lr))', 'lambda w, x, t, lr: f(w, x, t, lr)[0]']),
    '13.10': ([
    ], [
        'lambda n, x: f(n, x)[:3]', 'lambda n, x: f(n, x)[::-1]', 'lambda n, x: [2 * m for m in f(n, x)]']),
    '13.11': ([
    ], [
        'lambda s, n: weave(s, None, n)', 'lambda s, n: f(0, n)', 'lambda s, n: f(s, n)[::-1]',
        'lambda s, n: (f(s, n)[0], ~f(s, n)[1])', 'lambda s, n: (f(s, n)[0].float(), f(s, n)[1])']),
    '13.12': ([
        'lambda *a: {k: np.float32(v) for k, v in f(*a).items()}',
        'lambda *a: dict(f(*a), threshold=float(f(*a)["threshold"]))'], [
        'lambda v, t, l, r: f(t, t, l, r)', 'lambda v, t, l, r: f(v, t, 1 - l, r)',
        'lambda *a: tuple(f(*a).values())', 'lambda v, t, l, r: f(v, t, l, 0)',
        'lambda v, t, l, r: f(v, t, l, r + .1)']),
    '15.3': ([
        'lambda o, n, t: int(f(o, n, t))', 'lambda o, n, t: f(dict(o), dict(n), float(t))',
        'lambda o, n, t: not any(k not in n or n[k] < o[k] - t for k in o)'], [
        'lambda o, n, t: not f(o, n, t)', 'lambda o, n, t: all(n[k] >= o[k] - t for k in n)', 'lambda o, n, t: True',
        'lambda o, n, t: sum(n.values()) >= sum(o.values()) - t',
        'lambda o, n, t: all(n.get(k, 1) >= o[k] for k in o)']),
    '18.2': ([
        'lambda q, m, k: f(q, m, k).double()', 'lambda q, m, k: f(q, m, k).numpy()',
        'lambda q, m, k: f(q, m, k).tolist()',
        'lambda q, m, k: (q[:, None] - m).norm(dim=2).sort(1).values[:, :k].mean(1)'], [
        'lambda q, m, k: f(q, m, 1)', 'lambda q, m, k: f(m, q, k)',
        'lambda q, m, k: torch.cdist(q, m).topk(k).values.mean(1)', 'lambda q, m, k: f(q, m, k) * k',
        'lambda q, m, k: torch.cdist(q, m)[:, :k].mean(1)']),
    '18.3': ([
        'lambda p, n: f(p, n).tolist()', 'lambda p, n: f(p, n).numpy()', 'lambda p, n: f(p.double(), n)',
        'lambda p, n: f(p, n).int()'], [
        'lambda p, n: torch.arange(n)', 'lambda p, n: f(p, n).flip(0)', 'lambda p, n: f(p, len(p))',
        'lambda p, n: p[f(p, n)]', 'lambda p, n: (p - p[0]).norm(dim=1).topk(n, largest=False).indices']),
    '19.2': ([
        'lambda h, m: torch.tensor(f(h, m))', 'lambda h, m: f(h.double(), m)',
        'lambda h, m: __import__("numpy").float32(f(h, m))'], [
        'lambda h, m: 1 - f(h, m)', 'lambda h, m: ((h > .5) & m).sum() / ((h > .5) | m).sum()',
        'lambda h, m: f(h, m) / 2', 'lambda h, m: max(((h >= t) & m).sum() / m.sum() for t in h.unique())',
        'lambda h, m: f(h * 0, m)']),
    '19.3': ([
        'lambda h: f(h.clone())', 'lambda h: f(h) | h',
        'lambda h: torch.from_numpy(__import__("scipy.ndimage").ndimage.binary_fill_holes(h.numpy()))'], [
        'lambda h: h', 'lambda h: ~f(h)', 'lambda h: torch.ones_like(h)', 'lambda h: f(h) & ~h',
        'lambda h: F.max_pool2d(h[None].float(), 3, 1, 1)[0] > 0']),
}
