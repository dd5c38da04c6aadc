from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from pydantic import ValidationError

from echo_agent.audio import transforms
from echo_agent.audio.recording import rms_db
from echo_agent.audio.transforms import Transform, apply, resample, resample_margin
from tests.sounds import apart, lively, tone

RATE = 16_000


def _loudest_hertz(samples: np.ndarray, rate: int = RATE) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate / len(samples))


def _level_at(samples: np.ndarray, hertz: float, rate: int = RATE) -> float:
    """Amplitude of the sine at `hertz` in dB, away from the edges."""
    middle = samples[len(samples) // 8 : -len(samples) // 8]
    window = np.hanning(len(middle))
    wave = np.exp(-2j * np.pi * hertz * np.arange(len(middle)) / rate)
    return 20 * np.log10(abs(2 * np.sum(middle * window * wave) / window.sum()) + 1e-9)


# ------------------------------------------------------------------------------------------------ the model


@pytest.mark.parametrize(
    "fields",
    [
        {"speed": 0.2},
        {"speed": 2.1},
        {"speed": float("nan")},
        {"gain_db": 41.0},
        {"gain_db": float("-inf")},
        {"low_hz": 0.0},
        {"high_hz": -5.0},
        {"low_hz": 400.0, "high_hz": 300.0},
        {"low_hz": 300.0, "high_hz": 300.0},
        {"pitch": 2.0},
    ],
)
def test_wishes_that_cannot_be_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Transform.model_validate(fields)


def test_the_identity_changes_nothing() -> None:
    wave = lively(0.5, RATE)
    assert Transform().is_identity
    assert apply(wave, RATE, Transform()) is wave


@pytest.mark.parametrize("count", [1, 2, 10, 320, 511, 512, 513, 5000])
@pytest.mark.parametrize("speed", [0.25, 0.6, 1.0, 1.7, 2.0])
def test_the_length_is_the_one_foretold(count: int, speed: float) -> None:
    wave = lively(1.0, RATE)[:count]
    transform = Transform(speed=speed, low_hz=200.0, high_hz=4000.0, gain_db=3.0)
    heard = apply(wave, RATE, transform)
    assert heard.dtype == np.float32
    assert len(heard) == transform.samples_out(count) == max(1, round(count / speed))
    assert np.isfinite(heard).all()


def test_nothing_stays_nothing() -> None:
    assert len(apply(np.zeros(0, np.float32), RATE, Transform(speed=0.5))) == 0


def test_silence_stays_silence() -> None:
    silence = np.zeros(RATE, np.float32)
    heard = apply(silence, RATE, Transform(speed=0.5, low_hz=100.0, high_hz=5000.0, gain_db=40.0))
    assert np.abs(heard).max() == 0.0


def test_the_samples_that_are_given_are_not_changed() -> None:
    wave = lively(0.2, RATE)
    before = wave.copy()
    wave.flags.writeable = False
    apply(wave, RATE, Transform(speed=0.5, low_hz=300.0, gain_db=10.0))
    assert np.array_equal(wave, before)


# ------------------------------------------------------------------------------------------------ speed


@pytest.mark.parametrize("speed", [0.25, 0.5, 0.75, 1.5, 2.0])
@pytest.mark.parametrize("hertz", [220.0, 1000.0, 3000.0])
def test_speed_keeps_the_pitch(speed: float, hertz: float) -> None:
    heard = apply(tone(hertz, 2.0), RATE, Transform(speed=speed))
    assert len(heard) == round(2.0 * RATE / speed)
    assert _loudest_hertz(heard) == pytest.approx(hertz, abs=2.0)
    assert rms_db(heard) == pytest.approx(rms_db(tone(hertz, 2.0)), abs=1.0)


def test_long_stretches_keep_their_highest_tones() -> None:
    """In single precision the phases of a minute, played four times as slow, turn to noise."""
    wave = tone(7000.0, 15.0)
    heard = apply(wave, RATE, Transform(speed=0.25))
    end = heard[-RATE - 1000 : -1000]
    turning = np.exp(2j * np.pi * 7000.0 * np.arange(RATE) / RATE)
    pure = np.real(2 * np.mean(end / turning) * turning).astype(np.float32)
    assert rms_db(end) == pytest.approx(rms_db(wave), abs=0.5)
    assert rms_db(end - pure) < rms_db(end) - 38  # 25 in single precision


def test_speed_moves_events_to_where_they_should_be() -> None:
    wave = np.zeros(4 * RATE, np.float32)
    for at in (1.0, 2.5):
        wave[round(at * RATE) : round((at + 0.2) * RATE)] = tone(800.0, 0.2)
    slow = apply(wave, RATE, Transform(speed=0.5))
    loud = np.convolve(np.abs(slow), np.ones(160) / 160, "same") > 0.15
    begins = np.flatnonzero(loud[1:] & ~loud[:-1]) / RATE
    assert begins[0] == pytest.approx(2.0, abs=0.06)
    assert begins[-1] == pytest.approx(5.0, abs=0.06)


# ------------------------------------------------------------------------------------------------ band


def test_a_band_keeps_what_lies_in_it_and_removes_the_rest() -> None:
    wave = tone(100.0, 2.0, level=0.2) + tone(1000.0, 2.0, level=0.2) + tone(6000.0, 2.0, level=0.2)
    heard = apply(wave, RATE, Transform(low_hz=300.0, high_hz=3400.0))
    assert _level_at(heard, 1000.0) == pytest.approx(_level_at(wave, 1000.0), abs=0.05)
    assert _level_at(heard, 100.0) < _level_at(wave, 100.0) - 60
    assert _level_at(heard, 6000.0) < _level_at(wave, 6000.0) - 60


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 48_000])
def test_the_edges_are_steep(rate: int) -> None:
    transform = Transform(low_hz=500.0, high_hz=2000.0)
    for hertz, most, least in [(430.0, -50, -200), (560.0, 1, -1), (1940.0, 1, -1), (2070.0, -50, -200)]:
        wave = tone(hertz, 2.0, rate)
        change = _level_at(apply(wave, rate, transform), hertz, rate) - _level_at(wave, hertz, rate)
        assert least < change < most, (hertz, change)


def test_a_low_edge_is_steep_too() -> None:
    hum, voice = tone(20.0, 3.0), tone(120.0, 3.0)
    transform = Transform(low_hz=60.0)
    assert _level_at(apply(hum, RATE, transform), 20.0) < _level_at(hum, 20.0) - 40
    assert _level_at(apply(voice, RATE, transform), 120.0) == pytest.approx(_level_at(voice, 120.0), abs=0.2)


def test_a_band_does_not_move_events_in_time() -> None:
    wave = np.zeros(RATE, np.float32)
    wave[RATE // 2] = 0.8
    heard = apply(wave, RATE, Transform(low_hz=300.0, high_hz=3400.0))
    assert int(np.argmax(np.abs(heard))) == RATE // 2


def test_a_band_above_what_the_rate_can_hold() -> None:
    wave = lively(0.5, RATE)
    assert np.abs(apply(wave, RATE, Transform(low_hz=8000.0))).max() == 0.0
    assert np.abs(apply(wave, RATE, Transform(low_hz=9000.0, high_hz=12_000.0))).max() == 0.0
    assert apart(apply(wave, RATE, Transform(high_hz=20_000.0)), wave) < 1e-6


# ------------------------------------------------------------------------------------------------ gain


@pytest.mark.parametrize("gain_db", [-40.0, -6.0, 6.0, 15.0])
def test_gain_is_exact_where_there_is_room(gain_db: float) -> None:
    wave = tone(500.0, 0.5, level=0.1)
    factor = 10 ** (gain_db / 20)
    assert apart(apply(wave, RATE, Transform(gain_db=gain_db)), wave * factor) < 1e-6


def test_gain_never_leaves_full_scale() -> None:
    wave = lively(0.5, RATE)
    heard = apply(wave, RATE, Transform(gain_db=40.0))
    assert np.abs(heard).max() <= 1.0
    assert rms_db(heard) > rms_db(wave) + 6
    assert (np.sign(heard) == np.sign(wave)).all()


def test_the_limiter_is_smooth_ordered_and_sees_each_sample_alone() -> None:
    levels = np.linspace(-0.05, 0.05, 4001, dtype=np.float32)
    heard = apply(levels, RATE, Transform(gain_db=40.0))  # -5 to 5
    steps = np.diff(heard)
    assert (steps >= 0).all()
    assert steps.max() == pytest.approx(steps[2000], rel=1e-2)  # nowhere steeper than in its middle
    one = apply(levels[3000:3001], RATE, Transform(gain_db=40.0))
    assert one[0] == heard[3000]


# ------------------------------------------------------------------------------------------------ resampling

RATES = [(8_000, 16_000), (11_025, 16_000), (22_050, 16_000), (44_100, 16_000), (48_000, 16_000)]
RATES += [(96_000, 16_000), (192_000, 16_000), (16_000, 24_000), (44_101, 16_000), (7_919, 16_000)]


@pytest.mark.parametrize(("rate", "new_rate"), RATES)
def test_resampling_keeps_a_tone(rate: int, new_rate: int) -> None:
    wave = tone(1000.0, 1.0, rate)
    heard = resample(wave, rate, new_rate)
    assert heard.dtype == np.float32
    assert len(heard) == round(len(wave) * new_rate / rate)
    edge = new_rate // 20
    assert apart(heard[edge:-edge], tone(1000.0, 1.0, new_rate)[edge:-edge]) < 2e-3


@pytest.mark.parametrize("rate", [22_050, 44_100, 44_101, 48_000])
def test_what_the_new_rate_cannot_hold_is_gone(rate: int) -> None:
    for hertz in (9_000.0, 10_500.0):
        assert rms_db(resample(tone(hertz, 1.0, rate), rate, 16_000)[800:-800]) < -90


@pytest.mark.parametrize(("rate", "new_rate"), RATES)
def test_a_stretch_with_its_margin_resamples_as_the_whole_does(rate: int, new_rate: int) -> None:
    wave = lively(3.0, rate)
    whole = resample(wave, rate, new_rate)
    shared = np.gcd(rate, new_rate)
    down, up = rate // shared, new_rate // shared
    blocks = max(1, round(0.5 * shared))  # half a second in, where both grids have a sample
    piece = resample(wave[blocks * down : blocks * down + 2 * rate], rate, new_rate)
    edge = -(-resample_margin(rate, new_rate) * up // down)
    assert edge < 0.3 * new_rate
    same = whole[blocks * up :][: len(piece)]
    assert apart(piece[edge:-edge], same[edge:-edge]) < 3e-5


def test_an_odd_rate_is_no_denial_of_service() -> None:
    import resource

    wave = lively(30.0, 44_101)
    resample(wave[:4410], 44_101, 16_000)  # imports done
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    resample(wave, 44_101, 16_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 3.0  # 23 s by torchaudio's kernel


def test_resampling_nothing_and_next_to_nothing() -> None:
    assert len(resample(np.zeros(0, np.float32), 44_100, 16_000)) == 0
    assert len(resample(np.ones(1, np.float32), 44_100, 16_000)) == 1


# ------------------------------------------------------------------------------------------------ torchaudio

_WITHOUT_TORCHAUDIO = """
import sys
sys.modules["torchaudio"] = None  # what an import that fails leaves behind
import numpy as np
from echo_agent.audio.transforms import Transform, apply, audio_backend, resample
assert audio_backend().startswith("torch "), audio_backend()
with np.load(sys.argv[1]) as given:
    wave = given["wave"]
np.savez(
    sys.argv[2],
    **{f"rate{rate}": resample(wave, rate, 16_000) for rate in (8_000, 22_050, 44_100, 48_000)},
    **{f"speed{speed}": apply(wave, 16_000, Transform(speed=speed)) for speed in (0.25, 0.5, 0.8, 2.0)},
)
"""


def test_without_torchaudio_the_samples_are_the_same(tmp_path_factory: pytest.TempPathFactory) -> None:
    pytest.importorskip("torchaudio")
    assert transforms.audio_backend().startswith("torchaudio ")
    folder = tmp_path_factory.mktemp("fallback")
    wave = lively(2.0, RATE)
    np.savez(folder / "given.npz", wave=wave)
    subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCHAUDIO, str(folder / "given.npz"), str(folder / "heard.npz")],
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with np.load(folder / "heard.npz") as heard:
        for rate in (8_000, 22_050, 44_100, 48_000):
            assert apart(heard[f"rate{rate}"], resample(wave, rate, RATE)) < 2e-6
        for speed in (0.25, 0.5, 0.8, 2.0):
            with_torchaudio = apply(wave, RATE, Transform(speed=speed))
            assert apart(heard[f"speed{speed}"], with_torchaudio) < 2e-5


def test_importing_the_module_imports_neither_torch_nor_torchaudio() -> None:
    code = "import sys, echo_agent.audio.recording, echo_agent.stores; sys.exit('torch' in sys.modules)"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
