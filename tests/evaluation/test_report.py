"""The report: one file that a browser shows without complaint, whatever the names in it."""

import dataclasses
import html.parser
import io
import re

import browser_lib
import evaluation_lib
import numpy as np
import pytest
from PIL import Image

from imagenet_family import evaluation
from imagenet_family.errors import BuildError
from imagenet_family.evaluation import report
from imagenet_family.labels.classes import validation_image_names, validation_labels

MODELS = {"resnet50": 0.4, evaluation_lib.EVIL: 0.7}
MAX_BYTES = 2_000_000


@pytest.fixture(scope="module")
def measured(models):
    return evaluation.measure(models.splits, models.predictions(MODELS))


@pytest.fixture(scope="module")
def page(models, measured):
    return report.render(measured, models.splits)


class Tags(html.parser.HTMLParser):
    """Collects tags, attributes and visible text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text, self._hidden = [], [], [], 0
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self._hidden += tag == "style"

    def handle_endtag(self, tag):
        self._hidden -= tag == "style"

    def handle_data(self, data):
        if not self._hidden:
            self.text.append(data)


def text_of(page):
    return " ".join(" ".join(Tags(page).text).split())


def test_it_is_one_file_that_loads_nothing(page):
    assert len(page.encode()) < MAX_BYTES
    parsed = Tags(page)
    assert {"script", "iframe", "object", "img"}.isdisjoint(parsed.tags)
    loading = [value for name, value in parsed.attributes if name in ("src", "href", "xlink:href")]
    assert all(value.startswith(("#", "data:")) for value in loading)
    urls = re.findall(r"url\(([^)]*)\)", page)
    assert urls
    assert all(url.startswith(("data:image/webp;base64,", "#")) for url in urls)
    ids = [value for name, value in parsed.attributes if name == "id"]
    assert len(set(ids)) == len(ids)


def test_names_are_escaped(page):
    assert "<script" not in page
    assert evaluation_lib.EVIL in text_of(page)


def test_it_shows_every_number_of_the_evaluation(page, measured):
    text = text_of(page)
    for result in measured.results:
        for name, metric in result.metrics.items():
            if name == "imagenet_m":
                assert f"{metric.value} of {metric.n}" in text
            elif name != "per_class_accuracy":
                assert f"{100 * metric.value:.2f} %" in text
                assert (
                    f"{100 * metric.interval.low:.2f} to {100 * metric.interval.high:.2f}" in text
                )
    signed = [each.difference for each in measured.differences]
    signed += [each.gap for each in measured.gaps]
    signed += [g.gap.effective_robustness for g in measured.gaps if g.gap.effective_robustness]
    assert len(signed) > len(measured.differences) + len(measured.gaps)
    for each in signed:
        assert f"{100 * each.value:+.2f}".replace("-", "\N{MINUS SIGN}") in text
    for exclusion in (
        measured.result("resnet50", measured.splits[-1]).metrics["real_accuracy"].excluded
    ):
        assert f"{exclusion.n} images are not counted: {exclusion.reason}" in text
        assert all(name in text for name in exclusion.file_names)


def test_every_mistake_of_imagenet_m_is_there_with_its_picture(page, measured, models):
    split = next(s for s in measured.splits if s.split == "imagenet_m")
    section = page[page.index("ImageNet-M: mistake by mistake") :]
    section = section[: section.index("</section>")]
    expected = set()
    for model in MODELS:
        expected |= {
            m.file_name for m in measured.result(model, split).metrics["imagenet_m"].mistakes
        }
    assert expected
    assert set(re.findall(r"<small>(ILSVRC2012_val_\d+\.JPEG)</small>", section)) == expected
    assert section.count('class="pic ') == len(expected)
    # Where no label is right, that is said; where none is unclear, nothing is.
    mistakes = {
        m.file_name: m
        for model in MODELS
        for m in measured.result(model, split).metrics["imagenet_m"].mistakes
    }.values()
    unclear = sum(bool(m.unclear_multi_labels) for m in mistakes)
    assert unclear < len(expected)
    assert section.count("<small>unclear:</small>") == unclear
    assert section.count("<small>right:</small>") == len(expected)
    assert section.count("no label") == sum(not m.correct_multi_labels for m in mistakes) > 0


def test_without_images_there_are_no_pictures(models, measured):
    splits = [dataclasses.replace(split, image=None) for split in models.splits]
    page = report.render(measured, splits)
    assert "data:image" not in page
    assert text_of(page) == text_of(report.render(measured))


def test_images_that_cannot_be_decoded_are_left_out(models, measured):
    broken = [
        dataclasses.replace(split, image=lambda row, read=split.image: read(row)[:200])
        for split in models.splits
    ]
    assert text_of(report.render(measured, broken)) == text_of(report.render(measured))


def test_the_same_evaluation_gives_the_same_bytes(models, measured, page):
    assert report.render(measured, models.splits) == page


def test_a_perfect_model_on_one_split(models):
    split = models.splits[0]
    perfect = evaluation.Predictions(split.labels.label, split.labels.file_name)
    page = text_of(report.render(evaluation.measure([split], {"a": [perfect]}), [split]))
    assert "100.00 %" in page
    assert "Every class is always right." in page
    assert "No gap between validation and ImageNetV2" in page
    assert "no top-5 accuracy of a" in page


def test_a_file_that_cannot_be_written(tmp_path, measured):
    with pytest.raises(BuildError, match=r"missing/r\.html cannot be written"):
        evaluation.write_report(tmp_path / "missing" / "r.html", measured)


def noise(row):
    """An image that compresses badly."""
    pixels = np.random.default_rng(row).integers(0, 256, (96, 128, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=90)
    return out.getvalue()


@pytest.fixture(scope="module")
def full_size():
    """Two models over datasets of the published numbers of images and classes."""
    names = tuple(name.decode() for name in validation_image_names())
    label = validation_labels()
    v2 = np.arange(10_000) // 10
    v2_names = tuple(f"{label}/{row:040x}.jpeg" for row, label in enumerate(v2.tolist()))
    one = [[i] for i in label.tolist()]
    multi = {"correct_multi_labels": one, "unclear_multi_labels": [[]] * 50_000}
    kinds = [("imagenet2012_real", "validation", 50_000, {"real_label": one})]
    kinds += [("imagenet2012", "validation", 50_000, {})]
    kinds += [("imagenet2012_multilabel", "validation", 20_000, multi)]
    kinds += [("imagenet2012_multilabel", "imagenet_m", 68, multi)]
    splits = [
        evaluation.LabelledSplit(
            dataset,
            split,
            evaluation.Labels(
                names[:n],
                label[:n],
                is_problematic=np.arange(n) % 10 == 0,
                **{column: lists[:n] for column, lists in columns.items()},
            ),
            "/archives/ILSVRC2012_img_val.tar",
            noise,
        )
        for dataset, split, n, columns in kinds
    ]
    splits += [
        evaluation.LabelledSplit(
            f"imagenet_v2/{config}", "test", evaluation.Labels(v2_names, v2), "/archives/v2", noise
        )
        for config in ("matched-frequency", "threshold-0.7", "topimages")
    ]
    predictions = {}
    for model, accuracy in (("resnet50", 0.7), ("vit_large_patch16_224", 0.8)):
        rng = np.random.default_rng(len(model))
        predictions[model] = []
        for split in splits:
            truth = split.labels.label
            wrong = rng.random(len(truth)) > accuracy - 0.1 * (split.split == "test")
            best = (truth + wrong * rng.integers(1, 40, len(truth))) % 1000
            top5 = (best[:, None] + np.arange(5)) % 1000
            predictions[model].append(evaluation.Predictions(top5, split.labels.file_name))
    return splits, evaluation.measure(splits, predictions)


def test_at_full_size_it_stays_under_two_megabytes(full_size):
    splits, measured = full_size
    page = report.render(measured, splits).encode()
    assert 1_500_000 < len(page) < MAX_BYTES  # full of pictures, as far as they fit
    assert page.count(b'class="pic ') > 200
    assert page.count(b"<tr><th>999 ") == 1


def test_pictures_stop_where_the_file_would_be_too_large(full_size, monkeypatch):
    splits, measured = full_size
    monkeypatch.setattr(report, "MAX_BYTES", 1_000_000)
    page = report.render(measured, splits)
    assert 850_000 < len(page.encode()) <= 1_000_000
    assert page.count('class="pic ') > 50


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not (browser_lib.CHROMIUM and browser_lib.DRIVER):
        pytest.skip("chromium and chromedriver are not installed")
    with browser_lib.Browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


OVERLAPS = """
const found = [];
for (const svg of document.querySelectorAll('svg')) {
  const box = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll('text')].map(
    t => [t.textContent, t.getBoundingClientRect()]);
  texts.forEach(([a, p], i) => {
    if (p.left < box.left - 1 || p.right > box.right + 1) found.push(a + ' is cut off');
    texts.slice(i + 1).forEach(([b, q]) => {
      const wide = Math.min(p.right, q.right) - Math.max(p.left, q.left);
      const high = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
      if (wide > 1 && high > 1) found.push(a + ' over ' + b);
    });
  });
}
return found;
"""
COLOURS = """
const style = getComputedStyle(document.querySelector('section'));
const label = getComputedStyle(document.querySelector('svg text'));
return [style.backgroundColor, style.color, label.fill];
"""


def luminance(colour):
    channels = np.array([int(c) for c in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(channels <= 0.04, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200], ids=["phone", "desktop"])
def test_in_a_browser(browser, page, tmp_path, width, dark):
    path = tmp_path / "report.html"
    path.write_text(page, "utf-8")
    browser.open(path, width=width, dark=dark)
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.console() == []
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.run("return performance.getEntriesByType('resource').length") == browser.run(
        "return performance.getEntriesByType('resource').filter("
        "e => e.name.startsWith('data:')).length"
    )
    assert browser.run(OVERLAPS) == []
    background, text, label = map(luminance, browser.run(COLOURS))
    assert (background < 0.05) == dark
    assert label == text
    contrast = (max(background, text) + 0.05) / (min(background, text) + 0.05)
    assert contrast > 7


LONG_NAME = "vit_large_patch16_224.augreg_in21k_ft_in1k_and_a_little_more"
TOO_WIDE = """
return [...document.querySelectorAll('h1, h2, h3, p, li, summary, figcaption')].filter(
  element => element.scrollWidth > element.clientWidth).map(element => element.textContent);
"""


def test_a_long_name_of_a_model_stays_in_its_box(browser, page, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page.replace("resnet50", LONG_NAME), "utf-8")
    for width in (320, 390, 1200):
        browser.open(path, width=width, dark=False)
        assert browser.run(TOO_WIDE) == []
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")


def test_on_paper(browser, page, tmp_path):
    """Browsers leave out backgrounds there, which dots and pictures are, and nobody can scroll."""
    path = tmp_path / "report.html"
    path.write_text(page, "utf-8")
    browser.open(path, width=794, dark=True, printed=True)
    style = "return getComputedStyle(document.querySelector('{}')).{}"
    for element in (".dot", ".pic"):
        assert browser.run(style.format(element, "printColorAdjust")) == "exact"
    assert browser.run(style.format(".tall", "maxHeight")) == "none"
    background, text, _ = map(luminance, browser.run(COLOURS))
    assert background == 1
    assert text < 0.05
