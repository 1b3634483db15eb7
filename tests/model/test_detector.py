import numpy as np
import pytest
import torch

from callboard.core.errors import UserError
from callboard.model import detector as model_room
from callboard.model import pretrained
from callboard.model.cbam import Cbam
from callboard.model.detector import build_model
from callboard.model.heads import ATTENTION_ACTIVATIONS, SEGMENT_SOURCES, AttentionHead, TimeFrequencyHead
from callboard.params.model import ModelParams
from tests.toy_training import PARAMS


def params(**changes):
    return ModelParams.model_validate(PARAMS["model"] | changes)


def head_of(classify, attend):
    """A head of 2 features and 1 species with known weights."""
    head = AttentionHead(2, 1, params())
    with torch.no_grad():
        head.classify.weight.copy_(torch.tensor([classify]))
        head.attend.weight.copy_(torch.tensor([attend]))
    return head


def test_the_head_by_hand():
    features = torch.zeros(1, 2, 3, 2)  # (batch, channels, segments, mel cells)
    features[0, 0] = torch.tensor([[2.0, 4.0], [-5.0, 2.0], [0.0, 0.0]])
    features[0, 1] = torch.tensor([[1.0, 1.0], [0.0, 0.0], [-9.0, 4.0]])
    head_output = head_of([1.0, -1.0], [0.5, 0.0])(features)
    # ReLU, then the mean over mel cells: channel 0 is (3, 1, 0), channel 1 is (1, 0, 2) over time
    logits = np.array([2.0, 1.0, -2.0])
    weights = np.exp([1.5, 0.5, 0.0]) / np.exp([1.5, 0.5, 0.0]).sum()
    assert head_output.framewise[0, :, 0].tolist() == logits.tolist()
    np.testing.assert_allclose(head_output.attention_weights[0, :, 0].detach(), weights, rtol=1e-6)
    np.testing.assert_allclose(head_output.attention.item(), (weights * logits).sum(), rtol=1e-6)
    assert head_output.max.item() == 2.0
    assert head_output.segment[0, :, 0].tolist() == logits.tolist()


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("softmax", lambda u: np.exp(u) / np.exp(u).sum(axis=1, keepdims=True)),
        ("tanh", np.tanh),
        ("sigmoid", lambda u: 1 / (1 + np.exp(-u))),
        ("softmax_tanh", lambda u: np.exp(np.tanh(u)) / np.exp(np.tanh(u)).sum(axis=1, keepdims=True)),
    ],
)
def test_attention_activations_follow_their_formula(name, formula):
    u = np.random.default_rng(0).normal(size=(2, 5, 3))
    np.testing.assert_allclose(ATTENTION_ACTIVATIONS[name](torch.from_numpy(u)), formula(u), rtol=1e-12)


def test_the_frequency_head_by_hand():
    features = torch.zeros(1, 2, 3, 2)  # (batch, channels, segments, mel cells)
    features[0, 0] = torch.tensor([[2.0, 4.0], [-5.0, 2.0], [1.0, 0.0]])
    features[0, 1] = torch.tensor([[3.0, 1.0], [0.0, 0.0], [-9.0, 5.0]])
    over_time, over_frequency = head_of([1.0, -1.0], [0.5, 0.0]), head_of([1.0, 2.0], [0.0, 1.0])
    output = TimeFrequencyHead(over_time, over_frequency)(features)
    # ReLU, then the mean over segments: channel 0 is (1, 2), channel 1 is (1, 2) over mel cells
    weights = np.exp([1.0, 2.0]) / np.exp([1.0, 2.0]).sum()
    assert output.frequency.framewise[0, :, 0].tolist() == [3.0, 6.0]
    np.testing.assert_allclose(output.frequency.attention_weights[0, :, 0].detach(), weights, rtol=1e-6)
    np.testing.assert_allclose(output.frequency.attention.item(), weights @ [3.0, 6.0], rtol=1e-6)
    assert output.frequency.max.item() == 6.0
    assert output.frequency.frequency is None
    for mirrored, plain in zip(output[:-1], over_time(features), strict=False):
        assert torch.equal(mirrored, plain)


def test_frequency_runs_along_the_bands_of_the_frequency_head():
    network = build_model(params(frequency_head=True), 2).eval()
    image = torch.zeros(1, 64, 256)
    high = image.clone()
    high[0, :, 200:] = 5.0
    with torch.no_grad():
        outputs = network(high).frequency.framewise, network(image).frequency.framewise
    assert outputs[0].shape == (1, 8, 2)
    change = (outputs[0] - outputs[1]).abs().sum(dim=2)[0]
    assert change[-1] > 10 * change[0]


def naive_cbam(features, squeeze, excite, kernel):
    """Formulas (2) and (3) of Woo et al. 2018 one channel and one cell at a time."""
    n_channels, n_segments, n_cells = features.shape

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def perceptron(pooled):
        return excite @ np.maximum(squeeze @ pooled, 0)

    channels = features.reshape(n_channels, -1)
    by_channel = sigmoid(perceptron(channels.mean(axis=1)) + perceptron(channels.max(axis=1)))
    weighted = np.stack([features[c] * by_channel[c] for c in range(n_channels)])
    result = np.empty_like(weighted)
    for t in range(n_segments):
        for f in range(n_cells):
            total = 0.0
            for i in range(7):
                for j in range(7):
                    near_t, near_f = t + i - 3, f + j - 3
                    if 0 <= near_t < n_segments and 0 <= near_f < n_cells:
                        cell = weighted[:, near_t, near_f]
                        total += kernel[0, i, j] * cell.mean() + kernel[1, i, j] * cell.max()
            result[:, t, f] = weighted[:, t, f] * sigmoid(total)
    return result


@pytest.mark.parametrize(("n_channels", "n_hidden"), [(32, 2), (5, 1)])
def test_cbam_equals_the_naive_twin_and_keeps_the_shape(n_channels, n_hidden):
    torch.manual_seed(0)
    cbam = Cbam(n_channels).double()
    features = torch.randn(2, n_channels, 9, 4, dtype=torch.float64)
    over_channels, over_cells = cbam
    assert over_channels.squeeze.weight.shape == (n_hidden, n_channels)
    weights = over_channels.squeeze.weight, over_channels.excite.weight, over_cells.convolve.weight[0]
    squeeze, excite, kernel = (weight.detach().numpy() for weight in weights)
    expected = [naive_cbam(one, squeeze, excite, kernel) for one in features.numpy()]
    np.testing.assert_allclose(cbam(features).detach(), np.stack(expected), rtol=1e-9)


def test_cbam_is_part_of_the_features():
    network = build_model(params(cbam=True), 2).eval()
    image = torch.randn(1, 64, 32)
    plain = network.backbone(image[:, None])
    assert torch.equal(network.features(image), network.refine(plain))
    assert not torch.equal(network.features(image), plain)


@pytest.mark.parametrize("switch", ["cbam", "frequency_head"])
def test_a_switch_adds_weights_and_leaves_those_of_a_seed_alone(switch):
    weights = []
    for value in (False, True):
        torch.manual_seed(3)
        state = build_model(params(**{switch: value}), 2).state_dict()
        weights.append({name.replace("head.time.", "head."): tensor for name, tensor in state.items()})
    plain, switched = weights
    assert plain.keys() < switched.keys()
    assert all(torch.equal(switched[name], tensor) for name, tensor in plain.items())


def test_the_two_heads_have_weights_of_their_own():
    head = build_model(params(frequency_head=True), 2).head
    assert not torch.equal(head.time.classify.weight, head.frequency.classify.weight)


def test_every_activation_of_the_params_is_in_the_table():
    assert set(ATTENTION_ACTIVATIONS) == set(ModelParams.model_fields["attention"].annotation.__args__)
    assert set(SEGMENT_SOURCES) == set(ModelParams.model_fields["segment_source"].annotation.__args__)


def test_the_segment_output_can_be_weighted_by_attention():
    output = build_model(params(segment_source="class_x_attention"), 3)(torch.randn(2, 64, 32))
    torch.testing.assert_close(output.segment, output.framewise * output.attention_weights)
    assert not torch.equal(output.segment, output.framewise)


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv3_small_050", "convnext_atto"])
def test_outputs_have_one_row_per_clip_and_one_column_per_species(backbone):
    arguments = PARAMS["model"]["backbone_args"] if backbone == "resnet18" else {}
    output = build_model(params(backbone=backbone, backbone_args=arguments), 5)(torch.randn(2, 128, 64))
    assert output.attention.shape == output.max.shape == (2, 5)
    assert output.framewise.shape == output.attention_weights.shape == output.segment.shape == (2, 4, 5)


def test_time_runs_along_segments():
    network = build_model(params(), 2).eval()
    image = torch.zeros(1, 256, 32)
    late = image.clone()
    late[0, 200:] = 5.0
    with torch.no_grad():
        change = (network(late).framewise - network(image).framewise).abs().sum(dim=2)[0]
    assert change[-1] > 10 * change[0]


def is_channels_last(network):
    weight = network.backbone.layer2[0].conv1.weight
    return weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


def test_convolutions_are_channels_last_unless_a_strided_1x1_one_is_too_narrow():
    narrow = PARAMS["model"]["backbone_args"]
    wide = narrow | {"channels": [16, 16, 32, 32]}
    assert is_channels_last(build_model(params(backbone_args=wide), 2))
    assert not is_channels_last(build_model(params(backbone_args=narrow), 2))


def test_the_head_has_a_bias_only_where_asked():
    assert build_model(params(), 2).head.classify.bias is None
    assert build_model(params(head_bias=True), 2).head.attend.bias.shape == (2,)


def test_outputs_are_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = build_model(params(frequency_head=True, cbam=True), 2)(torch.randn(2, 64, 32))
    assert {column.dtype for column in (*output[:-1], *output.frequency[:-1])} == {torch.float32}


def test_an_unknown_backbone_is_refused_with_the_nearest_names():
    with pytest.raises(UserError, match=r"timm has no model 'resnet81'; the nearest are .*resnet18"):
        build_model(params(backbone="resnet81"), 2)


@pytest.mark.parametrize("arguments", [{"chanels": [8]}, {"in_chans": 3}, {"layers": "many"}])
def test_backbone_args_that_do_not_fit_are_refused(arguments):
    with pytest.raises(UserError, match=r"model\.backbone_args: resnet18 cannot be built with"):
        build_model(params(backbone_args=arguments), 2)


def test_of_a_long_error_the_first_line_is_told(monkeypatch):
    def create(*args, **kwargs):
        raise RuntimeError("Error in loading\nmissing keys\n" * 9)

    monkeypatch.setattr(model_room.timm, "create_model", create)
    with pytest.raises(UserError, match=r"cannot be built with .*: Error in loading$"):
        build_model(params(), 2)


@pytest.mark.parametrize("named", [{}, {"num_features": 5}, {"head_hidden_size": 5}])
def test_a_backbone_need_not_name_its_channels(monkeypatch, named):
    plain = torch.nn.Conv2d(1, 5, 3)
    for name, value in named.items():
        setattr(plain, name, value)
    monkeypatch.setattr(model_room.timm, "create_model", lambda *args, **kwargs: plain)
    assert build_model(params(), 2).head.classify.in_features == 5


def test_tokens_of_a_backbone_that_names_no_channels_are_refused(monkeypatch):
    flat = torch.nn.Flatten(2)
    monkeypatch.setattr(model_room.timm, "create_model", lambda *args, **kwargs: flat)
    with pytest.raises(UserError, match=r"gives \(1, 1, 4096\) where a feature map \(batch, channels,"):
        build_model(params(), 2)


def test_a_backbone_that_gives_tokens_is_refused():
    with pytest.raises(UserError, match=r"test_vit gives \(1, 17, 64\) where a feature map \(batch, 64,"):
        build_model(params(backbone="test_vit", backbone_args={}), 2)


def test_a_backbone_of_one_image_size_is_refused(monkeypatch):
    class Fixed(torch.nn.Module):
        def forward(self, image):
            raise AssertionError("Input height (64) doesn't match model (224).")

    monkeypatch.setattr(model_room.timm, "create_model", lambda *args, **kwargs: Fixed())
    with pytest.raises(UserError, match=r"resnet18 does not take images of any size: Input height \(64\)"):
        build_model(params(), 2)


def test_pretrained_weights_that_cannot_be_had_are_refused_with_a_way_out(monkeypatch):
    create = model_room.timm.create_model

    def without_weights(name, pretrained, **arguments):
        if pretrained:
            raise RuntimeError("No pretrained weights exist")
        return create(name, pretrained=False, **arguments)

    monkeypatch.setattr(model_room.timm, "create_model", without_weights)
    monkeypatch.setattr(pretrained, "_hub_answers", lambda: True)
    with pytest.raises(UserError, match=r"no weights for resnet18 \(RuntimeError: No pre.*pretrained=false"):
        build_model(params(pretrained=True), 2)
