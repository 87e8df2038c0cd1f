"""What speaks for a thing and what against it, and what to recommend: the questions of weighing two sides."""

from __future__ import annotations

from random import Random

from . import words
from .render import Message

# A topic | what people like about it | what they do not like.
TOPICS = """
electric cars|clean air, quiet streets, low costs per trip|a high price, long loading times, short trips
bicycles|good health, low costs, clean air|rain and cold, little room for bags, slow trips
cars|free choice of time, room for bags, fast trips|high costs, bad air, little rest in a full street
trains|time to read, clean air, safe trips|late arrival, fixed times, full seats
planes|fast trips, far places, safe travel|bad air, high costs, long waiting
buses|low costs, many stops, no search for a place to stop|slow trips, full seats, fixed times
public transport|low costs, clean air, time to read|fixed times, full seats, long ways to the stop
working from home|no way to work, quiet hours, free choice of time|few talks with others, no clear end, lonely days
working in an office|short ways to others, a clear end of the day, good machines|long ways to work, noise, fixed times
living in a city|many shops, short ways, music and theater|high costs, noise, bad air
living in the country|quiet nights, clean air, room for animals|long ways, few shops, few jobs
living alone|quiet evenings, free choice, your own order|lonely days, high costs, all the work for one
cats|quiet company, little work, fewer mice|broken sofas, hair on your clothes, costs for food
dogs|good friends, long walks, a safe house|much work, walks in the rain, costs for food
a pet|good company, joy for children, a reason to go out|daily work, costs for food, less free travel
a garden|fresh fruit, work in the sun, room to play|daily work, costs for water, insects
books|new ideas, quiet hours, better language|little room at home, costs, tired eyes
electronic books|low weight, many books in one bag, large letters|an empty battery, tired eyes, no smell of paper
online shopping|low prices, a large choice, no way to the shop|long waiting, no way to touch things, much paper
small shops|good advice, short ways, friendly people|high prices, a small choice, short opening hours
small models|fast answers, low memory use, work on any computer|wrong answers, little knowledge, short texts only
large models|good answers, much knowledge, long texts|high memory use, slow answers, high costs
cloud models|good answers, no hardware of your own, quick updates|less privacy, costs per request, need for a network
open source software|free use, open code, help from many people|little support, many versions, work to set it up
closed software|good support, one clear version, easy first steps|high costs, hidden code, need to trust one company
Python|easy reading, many libraries, quick first steps|slow loops, errors that show late, heavy use of memory
Rust|fast programs, safe memory, good error messages|hard first steps, slow builds, few old libraries
tests|fewer bugs, safe changes, examples of use|time to write them, time to run them, work with each change
YAML|easy reading, short files, room for comments|errors with spaces, strange types, long files that are hard to read
JSON|clear rules, support in all languages, fast reading by programs|no comments, many quotes, hard writing by hand
streaming|first words at once, an early stop, no long waiting|harder code, errors in the middle, no full text to check
a GPU|fast answers, large models, many users at once|high price, high power use, noise
a CPU|low costs, no special drivers, work on any computer|slow answers, small models only, few users at once
vLLM|many users at once, high speed, good use of the GPU|need for a GPU, long start, much memory
workflows|clear steps, use again and again, small parts|time to learn, one more file, harder errors
solar power|clean energy, free light, quiet work|no power at night, high first costs, much room
wind power|clean energy, low costs later, power at night too|noise, no power without wind, tall towers in the land
nuclear power|much power, clean air, power day and night|dangerous waste, high costs, long time to build
sport|good health, new friends, better sleep|tired legs, time, broken bones
swimming|good health, cool water, strong arms|wet hair, ways to the pool, costs for tickets
coffee|more energy, good smell, a break with friends|bad sleep, a fast heart, costs
tea|warm hands, calm hours, low costs|brown teeth, less taste than coffee, waiting
social media|news from friends, quick answers, free use|lost time, false news, less sleep
smartphones|maps and music in one, quick help, good cameras|lost time, tired eyes, high price
television|news, films at home, company in the evening|lost time, little sport, loud advertising
video games|fun with friends, quick hands, new worlds|lost time, tired eyes, little sport
school uniforms|less pressure, quick mornings, one team|no free choice, costs, boring colors
homework|practice, good habits, time to think alone|less play, tired children, different help at home
zoos|animals to see, work for rare animals, joy for children|small rooms for animals, long trips for them, costs
cash|no need for power, clear limits, private paying|risk of loss, need for change, no use online
credit cards|quick paying, use in all countries, no heavy coins|risk of debt, less privacy, costs
renting a flat|easy moving, low first costs, no repairs to pay|rent each month, rules of the owner, no house in the end
buying a house|your own rules, a safe place, no rent|high first costs, repairs to pay, hard moving
learning a language|new friends, better jobs, better travel|time, hard grammar, slow first steps
fast food|quick meals, low prices, the same taste everywhere|too much fat, too much salt, much plastic
cooking at home|fresh food, low costs, time with the family|time, dirty dishes, need for ideas
early rising|quiet hours, more light, a good start|early tired evenings, less time with friends, cold mornings
robots|help with hard work, no breaks, exact work|high price, fewer jobs, repairs
artificial intelligence|quick answers, help with boring work, new ideas|wrong answers, fewer jobs, use of much power
travel|new places, new friends, new food|high costs, long trips, tired feet
a large family|company, help at home, joy|noise, little room, high costs
summer|long days, swimming, fruit from the garden|hot nights, insects, little rain
winter|snow, warm evenings at home, quiet woods|short days, cold, high costs for heat
"""
FOR = (
    "What are the advantages of {}?|What are the advantages of {}?|What are the benefits of {}?|What speaks for {}?|"
    "Name the advantages of {}.|What is good about {}?|advantages of {}|List the pros of {}.|What are the pros of {}?|"
    "Give me three reasons for {}.|Why are people for {}?|Tell me the good sides of {}.|Name three advantages of {}."
).split("|")
AGAINST = (
    "What are the disadvantages of {}?|What are the disadvantages of {}?|What are the drawbacks of {}?|"
    "What speaks against {}?|Name the disadvantages of {}.|What is bad about {}?|disadvantages of {}|"
    "List the cons of {}.|What are the cons of {}?|Give me three reasons against {}.|Tell me the bad sides of {}."
).split("|")
WEIGH = (
    "These are the advantages of {topic}:\n\n{pros}\n\nThese are the disadvantages:\n\n{cons}\n\n"
    "What do you recommend, and to whom?"
)


def topics() -> list[tuple[str, list[str], list[str]]]:
    """Each topic and its two sides."""
    found = []
    for line in TOPICS.strip().splitlines():
        topic, pros, cons = line.split("|")
        found.append((topic, pros.split(", "), cons.split(", ")))
    return found


def one_side(topic: str, sides: list[str], good: bool) -> str:
    """The answer that names one side."""
    return f"Three things speak {'for' if good else 'against'} {topic}: {sides[0]}, {sides[1]} and {sides[2]}."


def recommendation(topic: str, pros: list[str], cons: list[str]) -> str:
    """The answer that weighs both sides."""
    return (
        f"I recommend {topic} to everyone who wants {pros[0]} and {pros[1]}. "
        f"If {cons[0]} or {cons[1]} would trouble you, choose something else."
    )


def invented(random: Random) -> tuple[str, list[str], list[str]]:
    """A topic that nobody knows, with sides of other topics."""
    a, b = random.sample(topics(), 2)
    topic = random.choice((words.made_up(random), f"{random.choice(words.ADJECTIVES)} {words.made_up(random)}s", a[0]))
    return topic, random.sample(a[1] + b[1], 3), random.sample(a[2] + b[2], 3)


def exchange(random: Random) -> list[Message]:
    """A question for one side of a topic, for a topic that is not known, or for what to recommend."""
    kind = random.random()
    if kind < 0.08:
        topic = words.made_up(random, random.choice((2, 3)))
        side = random.choice((FOR, AGAINST))
        answer = f"I do not know enough about {topic} to name its {'advantages' if side is FOR else 'disadvantages'}."
        return _turns(random.choice(side).format(topic), answer)
    if kind < 0.6:
        topic, pros, cons = random.choice(topics())
        good = random.random() < 0.5
        question = random.choice(FOR if good else AGAINST).format(topic)
        return _turns(question, one_side(topic, pros if good else cons, good))
    topic, pros, cons = random.choice(topics()) if random.random() < 0.5 else invented(random)
    prompt = WEIGH.format(topic=topic, pros=_said(random, topic, pros, True), cons=_said(random, topic, cons, False))
    return _turns(prompt, recommendation(topic, pros, cons))


def _said(random: Random, topic: str, sides: list[str], good: bool) -> str:
    if random.random() < 0.7:
        return one_side(topic, sides, good)
    if random.random() < 0.5:
        return "\n".join(f"{number}. {side}" for number, side in enumerate(sides, start=1))
    return ", ".join(sides).capitalize() + "."


def _turns(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
