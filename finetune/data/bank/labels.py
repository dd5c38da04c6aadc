"""What a file of a sound package is a recording of, read off its path.

Nobody has listened to these files; the label is what the author of the package called the file. The rules
are therefore kept per package, narrow, and in order: the first rule whose pattern is found in the path
decides, a path that no rule matches is not used at all. So a file has one label or none, and a doubtful name
is left out rather than guessed (the building names of lincity-ng, toy sounds, mixed scenes).

Labels of kind ``sound`` are the classes a model is asked about; a label of kind ``background`` only says
what fills the room. Patterns are searched, case-insensitively, in the path below the package's folder
(members of an archive are appended to the path of the archive).
"""

from __future__ import annotations

import re
from functools import cache

BACKGROUND_LABELS = ("rain", "wind", "fire", "crickets", "engine", "ambience")

_DRUM_KITS = (
    ("", r"sidestick|stick|empty|tambourine|tomb|conga|clave|cowbell|dununba|kenkeni|sangban|cajon|stomach"),
    ("clapping", r"clap"),
    (
        "cymbal",
        r"hi-?hat|hat[_ -]|hat(closed|open|pedal|semi|choke|swish)|hhat|_hh_|/hh|[_/](chh|ohh|ho)_",
    ),
    (
        "cymbal",
        r"openhat|closehihat|crash|ride|cymbal|splash|/china|/cra_|/[cr]c_\d|gmrockkit/bell|paistebell",
    ),
    ("drum", r"kick|snare|floortom|/(bassdrum|bd|powr_bd|powr_sn|sd_|t[12]_|ft_|hardhse_k)|tom[_\d -]?"),
)

# package -> (label, pattern) in order; an empty label means: not used
_RULES: dict[str, tuple[tuple[str, str], ...]] = {
    "asterisk-core-sounds-en-wav": (("beep", r"/beep(err)?\.wav$"),),
    "bucklespring-data": (("typing", r"/wav/.*\.wav$"),),
    "gcompris-qt-data": (
        ("drum", r"instruments/resource/snare_drum"),
        ("cymbal", r"instruments/resource/cymbal"),
        ("footsteps", r"icy_walk"),
        ("door", r"canal_lock/resource/door_|lrdoor_open"),
        ("guitar", r"instruments/resource/(electric_)?guitar|memory-sound/resource/guitar"),
        ("clapping", r"lrapplauses"),
        ("helicopter", r"/helicopter\.wav"),
        ("trumpet", r"instruments/resource/(trumpet|horn)"),
        ("bubbles", r"/bubble\.wav"),
        ("car", r"traffic/resource/car|lrstartandstopcarengine"),
        ("beep", r"/bleep\.wav|morse_code/resource/(dash|dot)"),
        ("water", r"canal_lock/resource/water_fill|core/resource/sounds/water"),
        ("telephone", r"lrring_01"),
        ("dog", r"lrbark_|animals/dog"),
        ("rain", r"lrrain_in_garden"),
        ("engine", r"lrfactory_noise_|lrtrain_slowing|railroad/resource/sounds/train"),
    ),
    "hydrogen-data": _DRUM_KITS,
    "hydrogen-drumkits": _DRUM_KITS,
    "lincity-ng-data": (("crowd", r"/(market(full|med|low)|sportscroud)\d"), ("car", r"/trafic(high|low)\d")),
    "lmms-common": (
        ("clapping", r"drums/clap|misc/applause"),
        ("drum", r"drums/(bassdrum|kick|snare|tom)"),
        ("cymbal", r"drums/(crash|hihat|ride)"),
        ("crowd", r"misc/raving_crowd"),
        ("guitar", r"instruments/steel_guitar|latin/latin_guitar"),
        ("trumpet", r"instruments/trumpet.*\.ogg"),
        ("bell", r"misc/dong0"),
    ),
    "minetest-data": (
        ("splash", r"water_footstep"),
        ("footsteps", r"_footstep"),
        ("door", r"doors/sounds/doors_|xpanes_steel_bar_door"),
        ("water", r"env_sounds_water"),
        ("chopping", r"dig_choppy"),
        ("fire", r"fire_fire|fire_large|fire_small|furnace_active|env_sounds_lava"),
    ),
    "openclonk-data": (
        ("footsteps", r"/step(hard|soft)\d"),
        ("scream", r"skin\.ocg/.*/scream\d"),
        ("bird", r"/birdsloop"),
        ("sword", r"shield\.ocg/(metalhit|weaponhitshield)|/weaponhit\d|/pickaxe\.ocg/clang|/lightmetalhit"),
        ("door", r"/door(open|close)\d"),
        ("airplane", r"/propellerloop"),
        ("laughter", r"/laughter\d"),
        ("bubbles", r"liquids\.ocg/(bubble\d|boiling)"),
        ("splash", r"liquids\.ocg/(splash|swim)\d"),
        ("thunder", r"/thunder\d"),
        ("chopping", r"/chop\d"),
        ("saw", r"/sawmillripcut"),
        ("water", r"/waterfall"),
        ("gunshot", r"/gunshoot\d"),
        ("trumpet", r"ui\.ocg/trumpet"),
        ("rain", r"/stereorain"),
        ("wind", r"/windloop"),
        ("fire", r"fire\.ocg/fire\.ogg|furnace\.ocg/loop"),
        ("crickets", r"/mosquitobuzz"),
        ("engine", r"/(steamengine|fanloop|pumpjack)\.ogg|elevator\.ocg/moving"),
    ),
    "openttd-opensfx": (
        ("airplane", r'/\d\d "(propeller plane start|early jet|mach 1|modern jet|toyland: propeller)'),
        ("beep", r'/\d\d "(beep|morse)"'),
        ("bell", r'/\d\d "level crossing"'),
        ("bird", r'/\d\d "tropical: bird'),
        ("bubbles", r'/\d\d "toyland: bubble (generated|plop)'),
        ("clapping", r'/\d\d "applause"'),
        ("helicopter", r'/\d\d "helicopter"'),
        ("saw", r'/\d\d "(sawmill|lumber mill: chainsaw)'),
        ("wind", r'/\d\d "(heavy )?wind"'),
        ("engine", r'/\d\d "(mining machinery|monorail train|maglev train)'),
    ),
    "scratch": (
        ("typing", r"/typing"),
        ("footsteps", r"/footsteps-"),
        ("scream", r"/scream-"),
        ("bird", r"/bird\."),
        ("door", r"/door(close|creak)"),
        ("crowd", r"/partynoise"),
        ("guitar", r"/guitar(strum|chords)"),
        ("clapping", r"/handclap"),
        ("trumpet", r"/trumpet\d"),
        ("bubbles", r"/bubbles"),
        ("laughter", r"/laugh-"),
        ("splash", r"/plunge"),
        ("car", r"/carpassing"),
        ("wolf", r"/wolfhowl"),
        ("beep", r"/computerbeeps"),
        ("water", r"/waterrunning"),
        ("bell", r"/belltoll"),
        ("dog", r"/dog\d"),
        ("cymbal", r"/(cymbalcrash|ridecymbal)"),
        ("crickets", r"/crickets\."),
    ),
    "searchandrescue-data": (
        ("", r"screech"),
        ("helicopter", r"/(helicopter_|hh60/|hh65/)"),
        ("airplane", r"/jet_engine"),
        ("door", r"/door_close"),
        ("splash", r"/splash_(aircraft|human)"),
        ("thunder", r"/thunder_"),
    ),
    "sonic-pi-samples": (
        ("", r"/drum_(roll|cowbell)"),
        ("drum", r"/(bd|sn)_|/drum_(bass|heavy|snare|tom)|/elec_(\w+_)?(snare|kick|tom)"),
        ("cymbal", r"/drum_(cymbal|splash)|/elec_cymbal"),
        ("guitar", r"/guit_"),
        ("door", r"/perc_door"),
        ("telephone", r"/mehackit_phone"),
        ("beep", r"/elec_(beep|blip)"),
        ("bell", r"/(perc|elec)_bell"),
        ("ambience", r"/(ambi_(drone|soft_buzz|haunted_hum|sauna|dark_woosh)|vinyl_hiss|loop_3d_printer)"),
    ),
    "sound-theme-freedesktop": (("bell", r"/bell\."), ("telephone", r"/phone-incoming")),
    "wesnoth-1.16-data": (
        ("scream", r"/human-.*(die|hit)"),
        ("bird", r"/ambient/birds"),
        ("sword", r"/(sword-1|axe|hatchet|knife|spear|mace|flail)\."),
        ("trumpet", r"/horn-signals/"),
        ("laughter", r"/(dwarf|witches)-laugh"),
        ("wolf", r"/wolf-growl"),
        ("thunder", r"/lightning\."),
        ("gunshot", r"/gunshot|/thunderstick"),
        ("bell", r"/sounds/bell\."),
        ("fire", r"/campfire"),
        ("crickets", r"/ambient/night"),
        ("ambience", r"/ambient/(ship|morning)"),
    ),
    "widelands-data": (
        ("bird", r"/animals/bird\d"),
        ("wolf", r"/animals/(wolf|coyote)"),
        ("crowd", r"/taverns/"),
        ("bubbles", r"/(beer|wine)bubble"),
        ("chopping", r"/woodcutting/(fast_)?woodcutting"),
        ("saw", r"/(sawing|benchsaw|sawmill)_"),
        ("crickets", r"/animals/crickets"),
        ("engine", r"/mill/mill_turning|/mill/weaving"),
        ("fire", r"/metal/furnace"),
    ),
}


@cache
def _compiled(package: str) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((label, re.compile(pattern, re.IGNORECASE)) for label, pattern in _RULES.get(package, ()))


def label_of(package: str, path: str) -> str | None:
    """The label of a file, or None if it is not used.

    Example:
        >>> label_of("scratch", "usr/share/scratch/Media/Sounds/Animal/Dog1.wav")
        'dog'
    """
    for label, pattern in _compiled(package):
        if pattern.search(f"/{path}"):
            return label or None
    return None


_LAYER = re.compile(r"[-_ ]?(softest|soft|med|hardest|hard|\d+)$", re.IGNORECASE)


def split_group(package: str, path: str) -> str:
    """The unit that must not be torn between splits: the file, or for a drum kit the instrument of that kit.

    A sampled kit holds the same stroke at several strengths; those layers are close copies of one another.
    """
    if not package.startswith("hydrogen-"):
        return f"{package}:{path}"
    folder, _, name = path.rpartition("/")
    stem = name.rpartition(".")[0]
    return f"{package}:{folder}/{_LAYER.sub('', stem) or stem}"
