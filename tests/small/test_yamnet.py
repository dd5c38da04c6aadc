"""YAMNet's shapes, and where its patches lie."""

from __future__ import annotations

import torch

from echo_agent.small.yamnet import CLASSES, HOP_SECONDS, RATE, WIDTH, Yamnet, patches


def test_a_patch_for_every_half_second() -> None:
    for seconds, count in ((0.1, 1), (0.96, 1), (1.2, 2), (1.5, 3), (10.0, 20)):
        assert patches(torch.zeros(round(seconds * RATE))).shape == (count, 96, 64), seconds


def test_a_click_is_in_the_patches_that_cover_it() -> None:
    samples = torch.zeros(5 * RATE)
    samples[3 * RATE : 3 * RATE + 400] = 0.5
    loud = patches(samples).amax(dim=(1, 2)) > -3
    expected = [i for i in range(len(loud)) if i * HOP_SECONDS <= 3.0 < i * HOP_SECONDS + 0.96]
    assert loud.nonzero().flatten().tolist() == expected


def test_shapes_and_stride() -> None:
    model = Yamnet().eval()
    with torch.inference_mode():
        features, logits = model(patches(torch.randn(2 * RATE)))
    assert features.shape == (4, WIDTH) and logits.shape == (4, CLASSES)
    assert sum(p.numel() for p in model.parameters()) == 3_729_481
