"""What is printed of public objects is a few lines."""

import knownot
from helpers import toy


def test_a_classifier_and_its_verdicts_are_a_few_lines():
    osc = knownot.fit(toy.graph(), toy.known(140, 3), detector="msp", guarantee="marginal", progress=False)
    verdicts = osc.predict(toy.known(20, 4)[0])
    for thing, says in ((osc, "4 classes"), (verdicts, "20 images: ")):
        text = repr(thing)
        assert says in text
        assert "promise" in text or "of known images are rejected" in text
        assert len(text) < 1_000
        assert text.count("\n") < 6
        assert thing._repr_html_().startswith("<pre>")
    assert "… and 17 more" in repr(verdicts)
    assert repr(osc.nothing).startswith("Verdicts: 0 images")


def test_a_class_that_sounds_like_nothing_is_told():
    names = ("stripes", "columns", "red", "Background")
    options = {"detector": "msp", "guarantee": "marginal", "progress": False, "class_names": names}
    osc = knownot.fit(toy.graph(), toy.known(140, 3), **options)
    assert any("none_classes=['Background']" in note for note in osc.record.notes)
