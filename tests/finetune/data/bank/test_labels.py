"""File names of the packages and the labels they stand for."""

import pytest

from echo_agent.finetune.data.bank import labels
from echo_agent.finetune.data.bank.packages import PACKAGES, RESERVED


@pytest.mark.parametrize(
    ("package", "path", "label"),
    [
        ("hydrogen-data", "drumkits/GMRockKit/Splash-Hard.wav", "cymbal"),
        ("minetest-data", "sounds/default_water_footstep.1.ogg", "splash"),
        ("minetest-data", "sounds/default_snow_footstep.1.ogg", "footsteps"),
        ("hydrogen-data", "drumkits/GMRockKit/SideStick-Hard.wav", None),
        ("hydrogen-data", "drumkits/GMRockKit/Kick-Soft.wav", "drum"),
        ("hydrogen-drumkits", "drumkits/Gimme A Hand 1.0/Tambourine-Soft.wav", None),
        ("hydrogen-drumkits", "drumkits/Audiophob/29800__stomachache__3.wav", None),
        ("hydrogen-drumkits", "drumkits/Millo-Drums_v.1/closehihat3.flac", "cymbal"),
        ("searchandrescue-data", "sounds/helicopter_wheel_screech.wav", None),
        ("searchandrescue-data", "sounds/hh60/engine_start.wav", "helicopter"),
        ("lincity-ng-data", "sounds/Water1.wav", None),
        ("lincity-ng-data", "sounds/MarketFull1.wav", "crowd"),
        ("openttd-opensfx", 'opensfx.cat/52 "Wind". Original "wind1.wav"', "wind"),
        ("openttd-opensfx", 'opensfx.cat/70 "Toyland: Jet take off". Original "beep"', None),
        ("sonic-pi-samples", "samples/drum_cowbell.flac", None),
        ("sonic-pi-samples", "samples/elec_hi_snare.flac", "drum"),
        ("somewhere-else", "dog.wav", None),
    ],
)
def test_one_label_or_none(package: str, path: str, label: str | None) -> None:
    assert labels.label_of(package, path) == label


def test_every_rule_names_a_known_package_and_a_label() -> None:
    names = {package.name for package in PACKAGES}
    for package, rules in labels._RULES.items():
        assert package in names
        assert package not in RESERVED
        assert all(label == label.strip().lower() for label, _ in rules)
    assert set(labels.BACKGROUND_LABELS) <= {label for rules in labels._RULES.values() for label, _ in rules}


def test_layers_of_a_drum_kit_form_one_group() -> None:
    soft = labels.split_group("hydrogen-data", "kits/Rock/HatClosed-Soft.wav")
    assert soft == labels.split_group("hydrogen-data", "kits/Rock/HatClosed-Hardest.wav")
    assert soft != labels.split_group("hydrogen-data", "kits/Rock/HatOpen-Soft.wav")
    assert labels.split_group("minetest-data", "step.1.ogg") != labels.split_group(
        "minetest-data", "step.2.ogg"
    )
