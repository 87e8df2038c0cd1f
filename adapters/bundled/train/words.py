"""Names, things and made-up words that the generators draw from."""

from __future__ import annotations

from random import Random

NAMES = (
    "Anna Ben Carla David Emma Felix Grace Henry Ida Jack Kate Leo Maria Noah Olga Paul Rosa Sam Tina Victor Alice "
    "Bob Clara Daniel Eva Frank Hanna Ivan Julia Karl Lena Max Nina Oscar Peter Sara Tom Yuki Zoe Ahmed Fatima Wei "
    "Priya Arjun Chen Diego Sofia Lucas Mia Omar Layla Hugo Elena Marco Ada Alan John Mary James Linda Robert Susan"
).split()
CITIES = (
    "Paris London Berlin Tokyo Rome Madrid Vienna Oslo Lisbon Dublin Prague Warsaw Athens Cairo Delhi Sydney Toronto "
    "Chicago Boston Seoul Beijing Moscow Helsinki "
    "Stockholm Zurich Munich Hamburg Milan Lyon Nairobi Lima Denver Austin "
    "Seattle Mumbai Osaka Bangkok Jakarta Budapest Brussels Amsterdam Copenhagen Geneva Istanbul Singapore Barcelona"
).split()
COLOURS = "red blue green yellow purple orange pink black white brown grey silver gold turquoise violet".split()
ANIMALS = "dog cat horse rabbit parrot hamster turtle goldfish pony lizard mouse duck goat sheep cow".split()
FOODS = "pizza pasta soup rice bread cheese salad curry pancakes apples chocolate sushi noodles tacos cake".split()
JOBS = "teacher doctor nurse cook farmer pilot writer painter engineer student gardener lawyer baker driver".split()
HOBBIES = (
    "chess football painting reading swimming hiking cooking dancing fishing gardening photography singing".split()
)
ADJECTIVES = (
    "big small old new quick slow happy quiet loud bright dark warm cold kind brave clever strange simple".split()
)
COMMON = (
    "apple banana cherry house garden river mountain window table chair book paper pencil music light water fire stone "
    "tree flower bird fish lion tiger bear wolf monkey elephant snake spider moon star sun sky cloud rain snow wind "
    "storm hello world goodbye friend family mother father sister brother child school office kitchen bottle glass cup "
    "plate spoon knife fork bread butter sugar salt pepper coffee tea milk juice lemon grape melon carrot potato onion "
    "tomato computer keyboard screen mouse printer phone camera radio robot engine train plane boat car bicycle bridge "
    "road street city village island ocean beach forest desert castle tower door key lock mirror lamp candle clock "
    "watch ring crown hat coat shoe glove shirt dress pocket basket box bag rope ladder hammer nail saw brush "
    "paint colour picture letter word number story poem song dance game ball doll kite drum piano guitar violin python "
    "server model "
    "token cat dog cow pig hen duck goose frog bee ant the quick brown fox jumps over lazy red blue green small large "
    "summer winter spring autumn monday friday morning evening night today planet rocket galaxy magic dragon wizard "
    "secret treasure pirate captain soldier king queen prince doctor teacher code test data file folder network cable"
).split()

_ONSETS = "b c d f g h j k l m n p r s t v w z br cr dr fl gr kl pl pr sh sk sl st th tr bl ch qu x".split()
_VOWELS = "a e i o u ai ea ee oo ou y".split()
_ENDS = ["", "", "", "n", "r", "l", "s", "t", "x", "m", "k", "rd", "nt", "sk", "ck", "th"]


def made_up(random: Random, syllables: int = 0) -> str:
    """A lower-case word that nobody ever used, of one to four syllables."""
    count = syllables or random.choice((1, 2, 2, 2, 3, 3, 4))
    parts = [random.choice(_ONSETS) + random.choice(_VOWELS) for _ in range(count)]
    return "".join(parts) + random.choice(_ENDS)


def letters(random: Random, shortest: int = 3, longest: int = 9) -> str:
    """A string of random letters."""
    return "".join(random.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(random.randint(shortest, longest)))


def code(random: Random) -> str:
    """A short code of capital letters and digits, as a booking or an order carries."""
    head = "".join(random.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(random.randint(1, 3)))
    return head + random.choice(("", "-")) + "".join(random.choice("0123456789") for _ in range(random.randint(2, 5)))


def word(random: Random, known: tuple[str, ...] = ()) -> str:
    """A word to work on: a common one, one of the known ones, a made-up one or random letters."""
    kind = random.random()
    if kind < 0.4:
        return random.choice(COMMON)
    if kind < 0.6 and known:
        return random.choice(known)
    return made_up(random) if kind < 0.85 else letters(random)


def phrase(random: Random, longest: int = 5, known: tuple[str, ...] = ()) -> str:
    """One to `longest` words, short ones more often."""
    count = random.choice((1, 1, 1, 2, 2, 3, longest))
    return " ".join(word(random, known) for _ in range(count))


def name(random: Random) -> str:
    """A first name, made up in half of the cases."""
    return random.choice(NAMES) if random.random() < 0.5 else made_up(random, random.choice((1, 2, 2, 3))).capitalize()


def place(random: Random) -> str:
    """A city, made up in half of the cases."""
    return random.choice(CITIES) if random.random() < 0.55 else made_up(random, random.choice((2, 3))).capitalize()
