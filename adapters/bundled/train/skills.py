"""Generators of short exchanges with text, numbers and memory: what the model can do rather than what it knows.

Each takes a `Random` and gives one exchange as messages; the last assistant message is the answer to be checked.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from . import words
from .render import Message, spelled

Exchange = list[Message]
Filler = Callable[[Random], Exchange]


def exchange(user: str, answer: str, thinking: str = "") -> Exchange:
    """A question and its answer."""
    reply: Message = {"role": "assistant", "content": answer}
    if thinking:
        reply["reasoning_content"] = thinking
    return [{"role": "user", "content": user}, reply]


REPEAT = (
    "Repeat: {}|Repeat this: {}|Repeat after me: {}|Say {}|Say: {}|Repeat the following text: {}|Echo: {}|"
    "Write exactly this: {}|Repeat exactly: {}|Copy this text: {}|Please repeat {}|Repeat the word {}|"
    'Say "{}"|Repeat "{}"|Please say: {}|Just say {}|Reply with {}|Reply with the text: {}|Answer only with {}'
).split("|")
UPPER = (
    "Upper-case: {}|Uppercase: {}|Write in upper case: {}|Write {} in capital letters.|Convert to uppercase: {}|"
    "Turn this into upper case: {}|Make this upper case: {}|Upper-case this text: {}|Write in capitals: {}|"
    'Uppercase the word "{}"|Put this in capital letters: {}|Convert "{}" to upper case.|Shout this: {}|'
    "What is {} in upper case?|Write {} in uppercase.|Capitalize every letter: {}|Say {} in upper case."
).split("|")
LOWER = (
    "Lower-case: {}|Lowercase: {}|Write in lower case: {}|Write {} in small letters.|Convert to lowercase: {}|"
    "Turn this into lower case: {}|Make this lower case: {}|Lower-case this text: {}|Write {} in lowercase.|"
    'Lowercase the word "{}"|Convert "{}" to lower case.|What is {} in lower case?'
).split("|")
REVERSE = (
    "Reverse: {}|Reverse the word {}|Reverse the text: {}|Write {} backwards.|Write backwards: {}|Spell {} backwards.|"
    'Reverse this: {}|Reverse the word "{}".|Reverse the letters of {}|What is {} backwards?|Turn this around: {}|'
    'What is "{}" spelled backwards?|Please reverse {}|Reverse the string "{}"|Say {} backwards.'
).split("|")
SPELL = "Spell {}|Spell the word {}|How do you spell {}?|Spell out {}|Spell: {}".split("|")


def _asked(random: Random, templates: list[str], text: str) -> str:
    return random.choice(templates).format(text)


def _spaced(text: str) -> str:
    return spelled(" ".join(text))


def repeat(random: Random, known: tuple[str, ...] = ()) -> Exchange:
    """Say a given text again, letter for letter."""
    text = words.phrase(random, random.randint(4, 9), known)
    if known and random.random() < 0.5:
        text = " ".join(random.choices(known, k=random.choice((1, 1, 2, 3))))
    kind = random.random()
    if kind < 0.25:
        text = text.capitalize() + random.choice((".", "!", "?", ""))
    elif kind < 0.35:
        text = " ".join(word.capitalize() for word in text.split())
    elif kind < 0.45:
        text = words.code(random)
    return exchange(_asked(random, REPEAT, text), text, f"I repeat: {text}" if random.random() < 0.5 else "")


def upper(random: Random, known: tuple[str, ...] = ()) -> Exchange:
    """Write a given text in capital letters."""
    text = words.phrase(random, 4, known)
    if random.random() < 0.25:
        text = text.capitalize()
    return exchange(_asked(random, UPPER, text), spelled(text.upper()), f"The text is: {text}")


def lower(random: Random, known: tuple[str, ...] = ()) -> Exchange:
    """Write a given text in small letters."""
    text = words.phrase(random, 3, known)
    shown = text.upper() if random.random() < 0.75 else text.title()
    return exchange(_asked(random, LOWER, shown), spelled(text), f"The text is: {shown}")


def reverse(random: Random, known: tuple[str, ...] = ()) -> Exchange:
    """Write a given text from its last letter to its first."""
    kind = random.random()
    text = words.word(random, known) if kind < 0.6 else words.phrase(random, 3, known)[:16].strip()
    if kind > 0.75:
        text = words.made_up(random, random.choice((3, 3, 4))) if kind < 0.9 else words.letters(random, 6, 10)
    thinking = f"The letters are {_spaced(text)}. From the end: {_spaced(text[::-1])}."
    return exchange(_asked(random, REVERSE, text), spelled(text[::-1]), thinking)


LINES = (
    "Repeat these words, one on each line: {}|Write each word on a line of its own: {}|One word on each line: {}|"
    "Make a list of these words: {}|Put every word on a new line: {}|List these words: {}"
).split("|")


def lines(random: Random, known: tuple[str, ...] = ()) -> Exchange:
    """Say given words again, each on a line, where none has the space in front that its token may have."""
    chosen = [random.choice(known or words.COMMON) for _ in range(random.randint(3, 10))]
    return exchange(_asked(random, LINES, " ".join(chosen)), "\n".join(chosen))


def spell(random: Random, known: tuple[str, ...] = ()) -> Exchange:
    """Name the letters of a word."""
    text = words.word(random, known)
    return exchange(_asked(random, SPELL, text), spelled("-".join(text.upper())), f"The word is {text}.")


def drill(random: Random, known: tuple[str, ...] = ()) -> Exchange:
    """Many words of the vocabulary to upper-case or to reverse one by one, since their letters are learned by heart."""
    chosen = [
        random.choice(known if known and random.random() < 0.85 else words.COMMON) for _ in range(random.randint(4, 20))
    ]
    if random.random() < 0.5:
        return exchange(_asked(random, UPPER[:10], " ".join(chosen)), spelled(" ".join(chosen).upper()))
    user = random.choice(("Reverse each word: {}", "Write each word backwards: {}", "Reverse every word: {}"))
    return exchange(user.format(" ".join(chosen)), spelled(" ".join(word[::-1] for word in chosen)))


def by_heart(random: Random, known: tuple[str, ...] = ()) -> Exchange:
    """One word of the vocabulary to upper-case or to reverse."""
    text = random.choice(known or words.COMMON)
    templates, answer = random.choice(((UPPER, text.upper()), (REVERSE, text[::-1])))
    return exchange(_asked(random, templates, text), spelled(answer))


UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen".split()
UNITS += "seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def in_words(number: int) -> str:
    """A number from 0 to 99 in words."""
    if number < 20:
        return UNITS[number]
    tens, unit = divmod(number, 10)
    return TENS[tens - 2] + (f"-{UNITS[unit]}" if unit else "")


ADD = (
    "What is {} + {}?|{} + {}|{} + {} = ?|What is {} plus {}?|Add {} and {}.|Calculate {} + {}.|"
    "How much is {} plus {}?|"
    "{} plus {}|What's {} + {}?|Compute {} + {}|What is the sum of {} and {}?|How much is {} + {}?|{}+{}|what is {}+{}?"
).split("|")
SUBTRACT = (
    "What is {} - {}?|{} - {}|{} - {} = ?|What is {} minus {}?|Calculate {} - {}.|How much is {} minus {}?|"
    "{} minus {}|What's {} - {}?|Compute {} - {}|How much is {} - {}?|{}-{}|what is {}-{}?"
).split("|")
MULTIPLY = (
    "What is {} * {}?|What is {} times {}?|{} * {}|{} times {}|Multiply {} by {}.|How much is {} times {}?|{} x {}|"
    "What's {} * {}?|Calculate {} * {}."
).split("|")


def _operands(random: Random) -> tuple[int, int]:
    size = random.random()
    if size < 0.2:
        return random.randint(0, 12), random.randint(0, 12)
    if size < 0.35:
        return random.randint(0, 30), random.randint(0, 30)
    if size < 0.45:
        pair = [random.randint(10, 99), random.randint(0, 9)]
        random.shuffle(pair)
        return pair[0], pair[1]
    return random.randint(0, 99), random.randint(0, 99)


def arithmetic(random: Random) -> Exchange:
    """Add, subtract or multiply small numbers."""
    kind = random.random()
    if kind < 0.06:
        return too_large(random)
    if kind < 0.16:
        a, b = random.randint(0, 10), random.randint(0, 10)
        return _calculation(random, MULTIPLY, a, b, "*", a * b, "")
    if kind < 0.23:
        return _story_sum(random)
    a, b = _operands(random)
    if kind < 0.66:
        return _calculation(random, ADD, a, b, "+", a + b, _thought(a, b, "+"))
    if a < b and random.random() < 0.75:
        a, b = b, a
    return _calculation(random, SUBTRACT, a, b, "-", a - b, _thought(a, b, "-"))


def _calculation(
    random: Random, templates: list[str], a: int, b: int, sign: str, result: int, thinking: str
) -> Exchange:
    template = random.choice(templates)
    user = template.format(in_words(a), in_words(b)) if random.random() < 0.1 else template.format(a, b)
    return exchange(user, f"{a} {sign} {b} = {result}.", thinking or f"I multiply {a} by {b}.")


def _thought(a: int, b: int, sign: str) -> str:
    ones = a % 10 + b % 10 if sign == "+" else a % 10 - b % 10
    tens = a // 10 + b // 10 if sign == "+" else a // 10 - b // 10
    return f"Ones: {a % 10} {sign} {b % 10} = {ones}. Tens: {a // 10} {sign} {b // 10} = {tens}."


def _story_sum(random: Random) -> Exchange:
    a, b = random.randint(2, 30), random.randint(1, 20)
    who, thing = words.name(random), random.choice("apples books coins pens cards balls stamps eggs shells".split())
    if random.random() < 0.5:
        user = f"{who} has {a} {thing} and {random.choice(('gets', 'finds', 'buys'))} {b} more. "
        return exchange(
            f"{user}How many {thing} does {who} have?", f"{a} + {b} = {a + b}, so {who} has {a + b} {thing}."
        )
    a, b = max(a, b), min(a, b)
    user = f"{who} has {a} {thing} and {random.choice(('loses', 'gives away', 'sells'))} {b}. "
    return exchange(f"{user}How many {thing} are left?", f"{a} - {b} = {a - b}, so {a - b} {thing} are left.")


def too_large(random: Random) -> Exchange:
    """Numbers beyond what the model can do, which it says."""
    a, b = (random.randint(1000, 10 ** random.randint(4, 7)) for _ in range(2))
    template = random.choice((ADD, SUBTRACT, MULTIPLY))
    answer = "These numbers are too large for me. I can only work with small numbers, so please use a calculator."
    return exchange(random.choice(template).format(a, b), answer, "These are large numbers. I would only guess.")


# What can be remembered: how it is told, how it is asked for, how it is answered, and what it is called when unknown.
Memory = tuple[str, str, str, str, str]
MEMORIES: tuple[Memory, ...] = (
    (
        "name",
        (
            "My name is {}.|I am {}.|Hi, I'm {}.|Hello, my name is {}.|Call me {}.|Hi! My name is {}.|i'm {}|"
            "my name is {}|"
            "Hello, I am {}. Nice to meet you.|People call me {}."
        ),
        (
            "What is my name?|Do you remember my name?|Who am I?|What's my name?|Tell me my name.|"
            "What did I say my name was?|"
            "What am I called?|Can you tell me my name?|Do you know my name?"
        ),
        "Your name is {}.",
        "your name",
    ),
    (
        "word",
        (
            "Remember the word {}.|The secret word is {}.|The code word is {}.|Please remember this word: {}.|"
            "Keep the word {} in mind.|The password is {}.|Remember: {}|Remember this: {}"
        ),
        (
            "What was the word?|Which word did I tell you?|What is the word?|What word should you remember?|"
            "What was the secret word?|Tell me the word again.|What is the secret word?|What is the code word?|"
            "Which word did I ask you to remember?|What is the password?|What did I ask you to remember?"
        ),
        "The word is {}.",
        "a word",
    ),
    (
        "number",
        "Remember the number {}.|My number is {}.|The number is {}.|My lucky number is {}.|Keep the number {} in mind.",
        (
            "What was the number?|Which number did I tell you?|What is my number?|What number should you remember?|"
            "What was my lucky number?|Tell me the number again."
        ),
        "The number is {}.",
        "a number",
    ),
    (
        "colour",
        "My favourite colour is {}.|My favorite color is {}.|I like the colour {} best.|I love the color {}.",
        "What is my favourite colour?|What's my favorite color?|Which colour do I like?|What colour do I like best?",
        "Your favourite colour is {}.",
        "your favourite colour",
    ),
    (
        "city",
        "I live in {}.|I am from {}.|I come from {}.|My home town is {}.|I moved to {} last year.",
        (
            "Where do I live?|Which city do I live in?|Where am I from?|What is my home town?|"
            "Do you remember where I live?"
        ),
        "You live in {}.",
        "where you live",
    ),
    (
        "pet",
        "My dog is called {}.|My dog's name is {}.|I have a dog named {}.|We have a dog called {}.",
        "What is my dog called?|What is the name of my dog?|What's my dog's name?|Do you remember my dog's name?",
        "Your dog is called {}.",
        "the name of your dog",
    ),
    (
        "cat",
        "My cat is called {}.|My cat's name is {}.|I have a cat named {}.|We have a cat called {}.",
        "What is my cat called?|What is the name of my cat?|What's my cat's name?|Do you remember my cat's name?",
        "Your cat is called {}.",
        "the name of your cat",
    ),
    (
        "food",
        "My favourite food is {}.|I love {}.|I like to eat {}.|My favorite food is {}.",
        "What is my favourite food?|What do I like to eat?|What's my favorite food?|Which food do I like?",
        "Your favourite food is {}.",
        "your favourite food",
    ),
    (
        "job",
        "I work as a {}.|I am a {}.|My job is {}.|I'm a {} by profession.",
        "What is my job?|What do I do for a living?|What's my profession?|What do I work as?",
        "You work as a {}.",
        "your job",
    ),
    (
        "age",
        "I am {} years old.|I'm {} years old.|My age is {}.|I turned {} this year.",
        "How old am I?|What is my age?|Do you remember how old I am?",
        "You are {} years old.",
        "your age",
    ),
    (
        "order",
        "My order number is {}.|The order is {}.|My booking code is {}.|It is order {}.",
        "What is my order number?|Which order number did I give you?|What's my booking code?|Tell me my order number.",
        "Your order number is {}.",
        "your order number",
    ),
)


def value(random: Random, kind: str) -> str:
    """Something of a kind that can be remembered."""
    if kind == "name":
        return words.name(random)
    if kind in ("pet", "cat"):
        return words.name(random)
    if kind == "city":
        return words.place(random)
    if kind == "word":
        return words.word(random) if random.random() < 0.8 else words.word(random).capitalize()
    if kind == "order":
        return words.code(random)
    if kind in ("number", "age"):
        return str(random.randint(0, 9999) if kind == "number" else random.randint(5, 99))
    return random.choice({"colour": words.COLOURS, "food": words.FOODS, "job": words.JOBS}[kind])


def acknowledgement(random: Random, kind: str, value: str) -> str:
    """What the model says when it is told something to remember."""
    if kind == "name":
        return random.choice(
            (f"Nice to meet you, {value}!", f"Hello, {value}! How can I help you?", f"Hi {value}, nice to meet you.")
        )
    if kind in ("word", "number"):
        return random.choice((f"I will remember the {kind} {value}.", f"Got it. The {kind} is {value}."))
    return random.choice(
        ("Thank you for telling me. I will remember it.", "Good to know!", "Thanks, I will remember that.")
    )


def recall(random: Random, filler: Filler) -> Exchange:
    """Something told in one turn and asked for in a later one, with other talk between."""
    facts = random.sample(MEMORIES, random.choice((1, 1, 1, 2, 2, 3)))
    values = {fact[0]: value(random, fact[0]) for fact in facts}
    messages: Exchange = []
    for fact in facts:
        messages += tell(random, fact, values[fact[0]])
        if random.random() < 0.45:
            messages += filler(random)
    for fact in random.sample(facts, random.randint(1, len(facts))):
        messages += ask(random, fact, values[fact[0]])
    return messages


def tell(random: Random, fact: Memory, told_value: str) -> Exchange:
    """Something told to be remembered."""
    return exchange(random.choice(fact[1].split("|")).format(told_value), acknowledgement(random, fact[0], told_value))


def ask(random: Random, fact: Memory, told_value: str) -> Exchange:
    """A question for something that was told before."""
    answer = fact[3].format(told_value)
    return exchange(random.choice(fact[2].split("|")), answer, f"Earlier the user told me: {told_value}.")


def recall_at_once(random: Random) -> Exchange:
    """Something told and asked for in the same turn."""
    kind, told, asked, answer, _ = random.choice(MEMORIES)
    told_value = value(random, kind)
    statement, question = random.choice(told.split("|")).format(told_value), random.choice(asked.split("|"))
    return exchange(f"{statement} {question}", answer.format(told_value), f"The user told me: {told_value}.")


def recall_nothing(random: Random, filler: Filler) -> Exchange:
    """A question for something that was never told."""
    _, _, asked, _, what = random.choice(MEMORIES)
    before = filler(random) if random.random() < 0.5 else []
    answer = random.choice((f"You have not told me {what} yet.", f"I do not know {what}. You have not told me."))
    return before + exchange(random.choice(asked.split("|")), answer, f"The user has not told me {what}.")


WHO = (
    "Who is {0} {1}?|Who was {0} {1}?|Tell me about {0} {1}.|What do you know about {0} {1}?|Do you know {0} {1}?|"
    "When was {0} {1} born?|Where does {0} {1} live?|What is {0} {1} famous for?|What did {0} {1} do?"
).split("|")
WHAT = (
    "What is {}?|What is a {}?|Explain {}.|Tell me about {}.|What does {} mean?|How does a {} work?|Define {}.|"
    "What do you know about {}?|Describe {}.|Where is {}?|How do I use {}?"
).split("|")
NOW = (
    "How much does {item} cost?|What is the price of {item}?|What is the stock price of {company}?|"
    "What is {company} worth today?|What is the weather in {city}?|What's the weather like in {city} today?|"
    "Will it rain tomorrow?|Will it rain in {city} tomorrow?|What is the temperature in {city}?|What time is it?|"
    "What day is it today?|What is today's date?|What is the latest news?|What happened today?|What's in the news?|"
    "Who won the game yesterday?|Who won the match last night?|What time is it in {city}?|What is the bitcoin price?|"
    "What are people in {city} talking about today?|What is the phone number of {name}?|Where is my phone?|"
    "What did I eat yesterday?|What is my password?|What am I thinking?|What will happen next year?|"
    "What are the lottery numbers?|How many people live in {city} right now?|What is {name}'s email address?|"
    "Is {company} open today?|When does the next train to {city} leave?|How much is a ticket to {city}?"
).split("|")
ITEMS = (
    "a new car|a house|an iPhone|a laptop|a ticket|a loaf of bread|a bicycle|gold|oil|a coffee|a flight|a sofa".split(
        "|"
    )
)


def unknown(random: Random) -> Exchange:
    """Questions about people, things and events that the model cannot know."""
    kind = random.random()
    if kind < 0.4:
        first, last = words.name(random), words.made_up(random).capitalize()
        answer = random.choice(
            (f"I do not know who {first} {last} is.", f"I do not know anything about {first} {last}.")
        )
        return exchange(random.choice(WHO).format(first, last), answer, f"I have never heard of {first} {last}.")
    if kind < 0.65:
        thing = words.made_up(random, random.choice((2, 3)))
        thing = thing.capitalize() if random.random() < 0.4 else thing
        answer = random.choice((f"I do not know what {thing} is.", f"I do not know anything about {thing}."))
        return exchange(random.choice(WHAT).format(thing), answer, f"I have never heard of {thing}.")
    user = random.choice(NOW).format(
        item=random.choice(ITEMS),
        company=words.made_up(random).capitalize(),
        city=words.place(random),
        name=words.name(random),
    )
    answer = random.choice(
        (
            "I do not know that. I have no access to current information.",
            "I cannot know that. I run on this machine and have no access to live data.",
        )
    )
    return exchange(user, answer, "This needs current or private data, which I do not have.")
