"""Which class of the images is which of the classifier's, and where names are read."""

import json
import unicodedata

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import knownot
from helpers import toy
from knownot import open_images
from knownot.errors import LabelsError
from knownot.images.labels import match_labels, names_of
from knownot.images.stream import own_names
from knownot.models import open_model
from knownot.models.names_beside import names_beside

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("own", "names", "found"),
    [
        (["A", "a", "b"], ["a", "A", "b"], [1, 0, 2]),
        (["cat", "DOG"], ["Cat", "Dog"], [0, 1]),
        (["A", "b"], ["a", "B", "b"], [0, 2]),
        (["A", "a"], ["a", "b"], [None, 0]),  # what is taken by the exact one is no other's
        (["DOG"], ["Dog", "dog"], [None]),  # two could be meant
        (["Dog", "dog"], ["DOG"], [None, None]),
        ([NFD], [NFC, "tea"], [0]),
        ([NFD.upper()], ["tea", NFC], [1]),
        (["straße"], ["STRASSE"], [0]),
    ],
)
def test_names_are_matched_exactly_first(own, names, found):
    assert match_labels(own, names) == found


@pytest.mark.parametrize(
    "given",
    [
        ["b", "a"],
        {"b": 0, "a": 1},
        {"a": 1, "b": 0},
        {0: "b", 1: "a"},
        {"1": "a", "0": "b"},
        {1: "a", 0: "b"},
        {"a": np.int64(1), "b": np.int64(0)},
    ],
)
def test_class_names_are_read_by_number(given):
    assert names_of(given) == ("b", "a")


@pytest.mark.parametrize("given", [{"a": 0, "b": 2}, {"a": 0, "b": 0}, {"a": "x"}, {0: "a", 5: "b"}])
def test_a_mapping_without_every_number_is_refused(given):
    with pytest.raises(LabelsError, match=r"class_names|more than once"):
        names_of(given)


def test_classes_that_differ_by_case_stay_apart(tmp_path):
    names = ["Stripes", "stripes", "RED", "red"]
    x, y = toy.known(160, 3)
    for i, (image, k) in enumerate(zip(x, y, strict=True)):
        (tmp_path / names[k]).mkdir(exist_ok=True)
        toy.written(tmp_path / names[k] / str(i), image[None])
    options = {"detector": "msp", "guarantee": "marginal", "progress": False}
    osc = knownot.fit(toy.graph(), tmp_path, class_names={name: k for k, name in enumerate(names)}, **options)
    assert osc.class_names == tuple(names)
    assert osc.record.accuracy > 0.95
    assert not any("No known image is of" in note for note in osc.record.notes)


class Pictures:
    """Like a data set of a library, whose labels are numbers of its own."""

    def __init__(self, order, **more):
        self.x, labels = toy.known(160, 3)
        self.y = [order.index(toy.CLASSES[k]) for k in labels]
        self.__dict__.update(more)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"image": self.x[i], "label": self.y[i]}

    def __iter__(self):
        return (self[i] for i in range(len(self)))


class Names:
    def __init__(self, names):
        self.names = names


class Around:
    def __init__(self, dataset):
        self.dataset = dataset

    def __iter__(self):
        return iter(self.dataset)


ORDER = ["red", "stripes", "blue", "columns"]


@pytest.mark.parametrize(
    "source",
    [
        Pictures(ORDER, features={"image": None, "label": Names(ORDER)}),
        Pictures(ORDER, classes=ORDER),
        Around(Pictures(ORDER, class_names=ORDER)),
    ],
    ids=["features", "classes", "inside"],
)
def test_a_data_sets_own_order_is_aligned_by_name(source):
    assert own_names(source) == tuple(ORDER)
    assert open_images(source).class_names == tuple(ORDER)
    options = {"detector": "msp", "guarantee": "marginal", "progress": False, "class_names": toy.CLASSES}
    osc = knownot.fit(toy.graph(), source, **options)
    assert osc.record.accuracy > 0.95
    renumbered = open_images(source, class_names=toy.CLASSES)
    (batch,) = renumbered.batches(200, None)
    assert batch.labels.tolist() == toy.known(160, 3)[1].tolist()


def test_a_data_sets_words_that_fit_no_output_leave_its_numbers():
    source = Pictures(list(toy.CLASSES), classes=["vier", "drei", "zwei", "eins"])
    options = {"detector": "msp", "guarantee": "marginal", "progress": False, "class_names": toy.CLASSES}
    assert knownot.fit(toy.graph(), source, **options).record.accuracy > 0.95


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("labels.txt", "0 a b\n1 c\n2 d\n3 e\n"),
        ("labels.txt", "\ufeffa b\nc\r\nd\ne"),
        ("class_indices.json", json.dumps({"d": 2, "a b": 0, "c": 1, "e": 3})),
        ("config.json", json.dumps({"id2label": {"0": "a b", "1": "c", "2": "d", "3": "e"}})),
        ("classes.json", json.dumps(["a b", "c", "d", "e"])),
    ],
)
def test_names_are_read_from_a_file_beside_the_model(tmp_path, file, text):
    path = toy.saved(tmp_path)
    (tmp_path / file).write_text(text, encoding="utf-8")
    opened = open_model(path)
    assert opened.class_names == ("a b", "c", "d", "e")
    assert any(file in note for note in opened.notes)
    assert names_beside(path, 5)[0] is None


def test_names_beside_that_do_not_fit_are_told(tmp_path):
    """Trainers put BACKGROUND first into labels.txt, and not into the network."""
    path = toy.saved(tmp_path)
    (tmp_path / "labels.txt").write_text("BACKGROUND\na\nb\nc\nd\n", encoding="utf-8")
    opened = open_model(path)
    assert opened.class_names is None
    assert opened.notes[-1] == "labels.txt, beside the model, has 5 names for 4 outputs: it was not used."


def test_folders_sorted_as_texts_but_trained_by_number_are_told(tmp_path):
    names = ("1", "9", "10", "11")  # of the outputs
    images, labels = toy.known(300, 2)
    given = [names[k] for k in labels]
    with pytest.raises(LabelsError, match=r"in order: \['1', '9', '10', '11'\], sorted by number\."):
        knownot.fit(toy.saved(tmp_path), images, labels=given, detector="msp", guarantee="marginal", progress=False)


def test_labels_of_another_order_are_called_by_their_own_names(tmp_path):
    """Given names of the outputs, the rows are numbered as those, not as the folders."""
    images, labels = toy.known(300, 2)
    swapped = ["columns", "stripes", "blue", "red"]
    given = [toy.CLASSES[k] for k in labels]
    options = {"detector": "msp", "guarantee": "marginal", "progress": False}
    with pytest.raises(LabelsError, match=r"label 'blue' is output 3") as error:
        knownot.fit(toy.saved(tmp_path), images, labels=given, class_names=swapped, **options)
    assert f"in order: {list(toy.CLASSES)}." in str(error.value)


def zipped(metadata=None, words=toy.CLASSES):
    proto = toy.graph()
    domain = "ai.onnx.ml"
    proto.graph.node.append(
        helper.make_node("ZipMap", ["probabilities"], ["loss"], domain=domain, classlabels_strings=words)
    )
    inner = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_value_info("loss", helper.make_sequence_type_proto(inner)))
    proto.opset_import.append(helper.make_opsetid(domain, 2))
    helper.set_model_props(proto, metadata or {})
    onnx.checker.check_model(proto)
    return proto


def test_what_is_behind_a_zip_map_is_read_with_its_names():
    opened = open_model(zipped())
    assert opened.class_names == toy.CLASSES
    assert {"logits", "head"} <= opened.capabilities.outputs
    x = (toy.known(5, 3)[0] / 255).astype(np.float32)
    plain = open_model(toy.graph())
    np.testing.assert_array_equal(opened.activations(x).logits, plain.activations(x).logits)


@pytest.mark.parametrize(
    ("order", "numbers", "way"),
    [
        ("Bgr8", "NominalRange_0_255", ("bgr", 1.0, (0.0,))),
        ("Rgb8", "Normalized_0_1", ("rgb", 1 / 255, (0.0,))),
        ("BGRA8", "Normalized_1_1", ("bgr", 1 / 127.5, (1.0,))),
    ],
)
def test_windows_ml_metadata_say_how_to_feed(order, numbers, way):
    said = open_model(zipped({"Image.BitmapPixelFormat": order, "Image.NominalPixelRange": numbers})).preprocess
    assert (said.channels, said.scale, said.mean) == way
    assert (said.height, said.width) == (16, 16)
    assert open_model(zipped({"Image.BitmapPixelFormat": "Gray8"})).preprocess is None
