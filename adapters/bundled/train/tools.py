"""Generators of conversations with tools: a call with the right arguments, an answer from a result, or no call."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from . import words
from .render import Message, tool_call

Slot = Callable[[Random], Any]


@dataclass(frozen=True)
class Argument:
    """One argument of a tool: the names it goes by, its JSON type, what it is, and how a value is drawn."""

    names: str
    kind: str
    description: str
    draw: Slot


@dataclass(frozen=True)
class Tool:
    """A tool family: its possible names, what it does, its arguments, and the requests that call for it."""

    names: str
    description: str
    arguments: tuple[Argument, ...]
    requests: str
    result: Callable[[Random, dict[str, Any]], Any]
    answer: str  # formatted with the arguments a0, a1, ... and the result's fields


def _text(random: Random) -> str:
    return words.phrase(random, 4)


def _topic(random: Random) -> str:
    return (
        words.phrase(random, 3)
        if random.random() < 0.6
        else f"{random.choice(words.ADJECTIVES)} {random.choice(words.COMMON)}"
    )


def _message(random: Random) -> str:
    return random.choice(
        (
            "I will be late", "see you tomorrow", "thank you", "the meeting is at noon", "happy birthday",
            "call me back",
            f"I like {words.word(random)}", f"bring the {words.word(random)}", f"the {words.word(random)} is ready",
        )
    )  # fmt: skip


def _number(low: int, high: int) -> Slot:
    return lambda random: random.randint(low, high)


def _one_of(*choices: str) -> Slot:
    return lambda random: random.choice(choices)


def _clock(random: Random) -> str:
    return f"{random.randint(0, 23):02}:{random.choice(('00', '15', '30', '45'))}"


def _expression(random: Random) -> str:
    return f"{random.randint(0, 999)} {random.choice('+-*/')} {random.randint(1, 999)}"


def _email(random: Random) -> str:
    host = random.choice(("example.com", "mail.com", "work.org", words.made_up(random) + ".com"))
    return f"{words.name(random).lower()}@{host}"


def _symbol(random: Random) -> str:
    return random.choice(
        ("AAPL", "MSFT", "NVDA", "TSLA", "".join(random.choice("ABCDEFGHIKLMNOPRST") for _ in range(4)))
    )


def _file(random: Random) -> str:
    return f"{words.word(random)}.{random.choice(('txt', 'py', 'md', 'json', 'csv'))}"


SKIES = "sunny cloudy rainy windy snowy clear".split()
TASKS = "buy milk|call mum|water the plants|pay the rent|feed the cat|send the report".split("|")
LANGUAGES = "French German Spanish Italian Korean Chinese Japanese".split()
ROOMS = "kitchen bedroom garage hall garden office bathroom cellar".split()
PLACE = Argument("city location place town city_name", "string", "The city", words.place)
NUMBERS = (
    Argument("a x first number1", "integer", "The first number", _number(0, 500)),
    Argument("b y second number2", "integer", "The second number", _number(0, 500)),
)

TOOLS: tuple[Tool, ...] = (
    Tool(
        "get_weather get_current_weather weather fetch_weather current_weather weather_lookup",
        "Get the current weather in a city|Returns the weather for a place|Current weather of a location",
        (PLACE,),
        "What is the weather in {0}?|How is the weather in {0}?|What's the weather like in {0}?|Weather in {0}|"
        "Is it raining in {0}?|Tell me the weather in {0}.|How warm is it in {0}?|What is the temperature in {0}?|"
        "Do I need an umbrella in {0}?|What's the weather like in {0} today?|Is it cold in {0} right now?",
        lambda r, a: {"temperature": r.randint(-10, 38), "condition": r.choice(SKIES)},
        "The weather in {0} is {condition} with a temperature of {temperature} degrees.",
    ),
    Tool(
        "get_weather get_current_weather get_temperature",
        "Get the weather in a given unit|Current weather with a unit",
        (PLACE, Argument("unit units", "string", "celsius or fahrenheit", _one_of("celsius", "fahrenheit"))),
        "What is the weather in {0} in {1}?|What is the temperature in {0} in {1}?|Weather in {0}, in {1} please.|"
        "Give me the temperature in {0} in {1}.",
        lambda r, a: {"temperature": r.randint(-10, 38), "unit": list(a.values())[1]},
        "It is {temperature} degrees {unit} in {0}.",
    ),
    Tool(
        "get_time current_time get_current_time time_in clock",
        "Get the current time in a city|Returns the local time of a place",
        (PLACE,),
        "What time is it in {0}?|What's the time in {0}?|Tell me the time in {0}.|Current time in {0}?|"
        "How late is it in {0}?",
        lambda r, a: {"time": _clock(r)},
        "It is {time} in {0}.",
    ),
    Tool(
        "add sum add_numbers plus",
        "Add two numbers|Returns the sum of two numbers",
        NUMBERS,
        "What is {0} + {1}?|Add {0} and {1}.|What is {0} plus {1}?|Calculate the sum of {0} and {1}.|{0} + {1}",
        lambda r, a: {"result": sum(a.values())},
        "The result is {result}.",
    ),
    Tool(
        "multiply times product",
        "Multiply two numbers",
        NUMBERS,
        "What is {0} * {1}?|Multiply {0} by {1}.|What is {0} times {1}?|How much is {0} times {1}?",
        lambda r, a: {"result": next(iter(a.values())) * list(a.values())[1]},
        "The result is {result}.",
    ),
    Tool(
        "calculate calculator evaluate compute math",
        "Evaluate an arithmetic expression|A calculator",
        (Argument("expression formula query", "string", "The expression", _expression),),
        "What is {0}?|Calculate {0}.|Compute {0}|How much is {0}?|Use the calculator for {0}.",
        lambda r, a: {"result": r.randint(0, 9999)},
        "The result is {result}.",
    ),
    Tool(
        "search web_search search_web google lookup",
        "Search the web|Search the internet for a query",
        (Argument("query q text search_query", "string", "What to search for", _topic),),
        "Search for {0}.|Search the web for {0}.|Find information about {0}.|Look up {0}.|Google {0}|"
        "Can you search the internet for {0}?|Please look up {0} online.",
        lambda r, a: {"title": f"All about {next(iter(a.values()))}"},
        "I found a page with the title: {title}.",
    ),
    Tool(
        "send_email email mail send_mail",
        "Send an email|Sends an e-mail to somebody",
        (
            Argument("to recipient address", "string", "The address", _email),
            Argument("body text message", "string", "The text", _message),
        ),
        "Send an email to {0} saying {1}.|Email {0}: {1}|Write an email to {0} that says {1}.|Mail {0} and say {1}.",
        lambda r, a: {"status": "sent"},
        "The email to {0} was sent.",
    ),
    Tool(
        "send_message message text_message send_sms notify",
        "Send a message to a person",
        (
            Argument("to recipient name person", "string", "Who gets it", words.name),
            Argument("message text body", "string", "The message", _message),
        ),
        "Tell {0} {1}.|Send {0} a message: {1}|Message {0}: {1}|Text {0} that {1}.|Send a message to {0} saying {1}.",
        lambda r, a: {"status": "sent"},
        "Your message to {0} was sent.",
    ),
    Tool(
        "set_timer timer start_timer countdown",
        "Set a timer|Starts a timer of some minutes",
        (Argument("minutes duration length", "integer", "The minutes", _number(1, 90)),),
        "Set a timer for {0} minutes.|Timer for {0} minutes|Start a {0} minute timer.|Wake me in {0} minutes.",
        lambda r, a: {"status": "started"},
        "The timer for {0} minutes is running.",
    ),
    Tool(
        "set_alarm alarm create_alarm",
        "Set an alarm for a time",
        (Argument("time at", "string", "The time", _clock),),
        "Set an alarm for {0}.|Wake me up at {0}.|Alarm at {0}|Please wake me at {0}.",
        lambda r, a: {"status": "set"},
        "The alarm is set for {0}.",
    ),
    Tool(
        "create_reminder remind add_reminder reminder",
        "Create a reminder",
        (
            Argument("text task title", "string", "What to remember", _one_of(*TASKS)),
            Argument("time when at", "string", "The time", _clock),
        ),
        "Remind me to {0} at {1}.|Set a reminder to {0} at {1}.|At {1}, remind me to {0}.",
        lambda r, a: {"status": "ok"},
        "I will remind you to {0} at {1}.",
    ),
    Tool(
        "translate translate_text translator",
        "Translate a text into a language",
        (
            Argument("text phrase input", "string", "The text", _text),
            Argument("language target target_language to", "string", "The language", _one_of(*LANGUAGES)),
        ),
        "Translate {0} to {1}.|Translate {0} into {1}.|What is {0} in {1}?|How do you say {0} in {1}?|Say {0} in {1}.",
        lambda r, a: {"translation": words.made_up(r)},
        "{0} in {1} is {translation}.",
    ),
    Tool(
        "get_stock_price stock_price stock quote",
        "Get the price of a stock",
        (Argument("symbol ticker stock", "string", "The symbol", _symbol),),
        "What is the stock price of {0}?|How much is {0} stock?|Stock price of {0}|What does a share of {0} cost?",
        lambda r, a: {"price": r.randint(5, 900)},
        "The price of {0} is {price} dollars.",
    ),
    Tool(
        "play_music play_song play",
        "Play a song or an artist",
        (Argument("title song name query", "string", "What to play", _topic),),
        "Play {0}.|Put on {0}.|I want to hear {0}.|Play the song {0}.|Please play {0}.",
        lambda r, a: {"status": "playing"},
        "Now playing {0}.",
    ),
    Tool(
        "turn_on switch_on light_on",
        "Turn on a light in a room",
        (Argument("room device light name", "string", "Which one", _one_of(*ROOMS)),),
        "Turn on the {0} light.|Switch on the light in the {0}.|Lights on in the {0}.|Turn on the lights in the {0}.",
        lambda r, a: {"status": "on"},
        "The light in the {0} is on.",
    ),
    Tool(
        "read_file open_file get_file cat_file",
        "Read a file",
        (Argument("path file filename name", "string", "The file", _file),),
        "Read the file {0}.|Open {0}.|Show me {0}.|What is in {0}?|Show the contents of {0}.",
        lambda r, a: {"content": words.phrase(r, 4)},
        "The file {0} contains: {content}",
    ),
    Tool(
        "get_order_status order_status track_order check_order",
        "Look up the status of an order",
        (Argument("order_id order id number", "string", "The order number", words.code),),
        "Where is my order {0}?|What is the status of order {0}?|Track order {0}.|"
        "Has order {0} been shipped?|Check order {0}.",
        lambda r, a: {"status": r.choice(("shipped", "delivered", "delayed", "packed", "cancelled"))},
        "Your order {0} is {status}.",
    ),
    Tool(
        "book_flight find_flight search_flights flights",
        "Find a flight between two cities",
        (
            Argument("origin from from_city start", "string", "Where it starts", words.place),
            Argument("destination to to_city end", "string", "Where it goes", words.place),
        ),
        "Find a flight from {0} to {1}.|Book a flight from {0} to {1}.|I want to fly from {0} to {1}.|"
        "Flights from {0} to {1}?",
        lambda r, a: {"flight": words.code(r), "price": r.randint(40, 900)},
        "Flight {flight} from {0} to {1} costs {price} dollars.",
    ),
    Tool(
        "roll_dice dice roll",
        "Roll a dice with some sides",
        (Argument("sides faces", "integer", "The sides", _number(2, 100)),),
        "Roll a dice with {0} sides.|Roll a {0} sided dice.|Throw a dice with {0} sides.",
        lambda r, a: {"result": r.randint(1, next(iter(a.values())))},
        "The dice shows {result}.",
    ),
    Tool(
        "lookup_person find_contact get_contact get_user find_person",
        "Look up a person in the address book",
        (Argument("name person contact user", "string", "The name", words.name),),
        "What is the phone number of {0}?|Find {0} in my contacts.|Look up {0}.|"
        "Show me the contact of {0}.|Who is {0}?",
        lambda r, a: {"phone": f"555-{r.randint(1000, 9999)}"},
        "The phone number of {0} is {phone}.",
    ),
)  # fmt: skip

REFUSE_INSTEAD = "I have no tool for that, and I do not know it."


@dataclass(frozen=True)
class Offer:
    """A tool family with its names settled: what is offered to the model."""

    tool: Tool
    name: str
    arguments: tuple[str, ...]

    @property
    def schema(self) -> Message:
        """The tool in OpenAI's shape."""
        properties = {
            name: {"type": argument.kind, "description": argument.description}
            for name, argument in zip(self.arguments, self.tool.arguments, strict=True)
        }
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.tool.description.split("|")[len(self.name) % len(self.tool.description.split("|"))],
                "parameters": {"type": "object", "properties": properties, "required": list(self.arguments)},
            },
        }


def offer(random: Random, tool: Tool) -> Offer:
    """Settle the names of a tool and its arguments, unseen ones now and then."""
    name = random.choice(tool.names.split())
    if random.random() < 0.12:
        name = f"{random.choice(('do', 'run', 'my', 'api'))}_{words.made_up(random)}"
    names = [random.choice(argument.names.split()) for argument in tool.arguments]
    if len(set(names)) < len(names):
        names = [f"{name}{index}" for index, name in enumerate(names, start=1)]
    return Offer(tool, name, tuple(names))


def strip_schema(random: Random, schema: Message) -> Message:
    """The schema, sometimes without its descriptions or its list of required arguments."""
    function = json.loads(json.dumps(schema["function"]))
    if random.random() < 0.3:
        for value in function["parameters"]["properties"].values():
            value.pop("description")
    if random.random() < 0.2:
        function["parameters"].pop("required")
    return {"type": "function", "function": function}


def some(random: Random, count: int, without: Tool | None = None) -> list[Offer]:
    """Different tools to offer, in any order."""
    others = [tool for tool in TOOLS if tool is not without and (without is None or not _alike(tool, without))]
    chosen = random.sample(others, min(count, len(others)))
    kept = [tool for index, tool in enumerate(chosen) if not any(_alike(tool, t) for t in chosen[:index])]
    return [offer(random, tool) for tool in kept]


def _alike(a: Tool, b: Tool) -> bool:
    """Whether two tools would answer the same request."""
    groups = ("weather", "add calculate multiply", "search lookup_person", "send_email send_message")
    first = (a.names.split()[0], b.names.split()[0])
    return first[0].split("_")[-1] == first[1].split("_")[-1] or any(
        all(name in group or name.split("_")[-1] in group for name in first) for group in groups
    )


def call(random: Random) -> tuple[list[Message], list[Message]]:
    """Tools, and a conversation in which one of them is called (twice at times), mostly with its result answered."""
    tool = random.choice(TOOLS) if random.random() < 0.75 else TOOLS[random.choice((0, 0, 1, 2, 5, 6))]
    chosen = offer(random, tool)
    offers = [chosen, *some(random, random.choice((0, 0, 1, 1, 2, 3)), tool)]
    random.shuffle(offers)
    if tool.names.startswith("get_weather get_current_weather weather") and random.random() < 0.3:
        return [o.schema for o in offers], two_calls(random, chosen)
    messages, values = _request(random, chosen)
    if random.random() < 0.5:
        messages += _result(random, chosen, values)
    return [strip_schema(random, o.schema) for o in offers], messages


def _request(random: Random, chosen: Offer) -> tuple[list[Message], list[Any]]:
    values = [argument.draw(random) for argument in chosen.tool.arguments]
    request = random.choice(chosen.tool.requests.split("|")).format(*values)
    arguments = dict(zip(chosen.arguments, values, strict=True))
    reply: Message = {"role": "assistant", "content": "", "tool_calls": [tool_call(chosen.name, arguments)]}
    reply["reasoning_content"] = f"The tool {chosen.name} fits. I call it."
    return [{"role": "user", "content": request}, reply], values


def _result(random: Random, chosen: Offer, values: list[Any]) -> list[Message]:
    result = chosen.tool.result(random, dict(zip(chosen.arguments, values, strict=True)))
    answer = chosen.tool.answer.format(*values, **result)
    if random.random() < 0.1:
        result, answer = {"error": "not found"}, "The tool reported an error: not found."
    content = json.dumps(result, ensure_ascii=False)
    if len(result) == 1 and "error" not in result and random.random() < 0.3:
        content = str(next(iter(result.values())))
    return [
        {"role": "tool", "content": content},
        {"role": "assistant", "content": answer, "reasoning_content": "The tool gave a result."},
    ]


def two_calls(random: Random, chosen: Offer) -> list[Message]:
    """A request that needs the same tool for two cities, and its answer."""
    cities = [words.place(random), words.place(random)]
    request = random.choice(
        ("What is the weather in {} and {}?", "Compare the weather in {} and {}.", "Weather in {} and in {}?")
    )
    calls = [tool_call(chosen.name, {chosen.arguments[0]: city}) for city in cities]
    results = [(random.randint(-5, 35), random.choice(("sunny", "cloudy", "rainy"))) for _ in cities]
    answer = " ".join(f"In {c} it is {w} with {t} degrees." for c, (t, w) in zip(cities, results, strict=True))
    return [
        {"role": "user", "content": request.format(*cities)},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": calls,
            "reasoning_content": f"I call {chosen.name} for each city.",
        },
        *({"role": "tool", "content": json.dumps({"temperature": t, "condition": w})} for t, w in results),
        {"role": "assistant", "content": answer},
    ]
